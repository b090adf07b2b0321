"""Frozen bases: a small generated core R becomes the pair of factors (A, U R), of which only R is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qpa_hf.generator.generator import Generator
from qpa_hf.generator.mapping import split_into
from qpa_hf.generator.pieces import Pieces


class Pair(NamedTuple):
    """Two slots that stand on frozen bases.

    Args:
        a: number of the slot that holds A, shape (rank, n_in).
        b: number of the slot that holds B = U R, shape (n_out, rank).
        n_experts: number of equal parts of A's rows, each with its own core and columns of B. Those of an expert lie
            `n_experts` apart, as PEFT lays them: column 1 of B for two experts is the first of the second expert.
    """

    a: int
    b: int
    n_experts: int = 1


class FrozenBases(Pieces):
    """Where the bases lie in a generator's `basis` buffer, and how they become slots together with its cores.

    The buffer holds every A, then every U (n_out, rank), end to end in the order of the pairs. The generator's vector
    holds the slots that belong to no pair, then the cores, which are square.

    For one pair with n_in = 3, n_out = 2 and rank 1, the buffer is (a0, a1, a2, u0, u1) and the vector is (r): A is
    the row (a0, a1, a2), and B the column (u0 r, u1 r).

    Where bases are found in several stages, each has its own rows of A and columns of U, and a core between them. In
    the columns of stages that are over, U is already multiplied by their cores; those to come are zero.

    Args:
        shapes: shape of every slot, those of pairs last but for their As.
        pairs: the slots that stand on bases.
        n_stages: number of times that bases are found, a divisor of every rank.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], pairs: Sequence[Pair], n_stages: int = 1) -> None:
        super().__init__(shapes)
        self.pairs = list(pairs)
        paired = {index for pair in pairs for index in pair}
        self.others = [i for i in range(len(shapes)) if i not in paired]
        self.n_stages = n_stages
        sides = [shapes[pair.a][0] // n_stages // pair.n_experts for pair in pairs]
        self.core_shapes = [
            torch.Size((pair.n_experts, side, side) if pair.n_experts > 1 else (side, side))
            for pair, side in zip(pairs, sides, strict=True)
        ]
        self.buffer_shapes = [self.shapes[pair.a] for pair in pairs] + [self.shapes[pair.b] for pair in pairs]

    @property
    def n_buffer(self) -> int:
        """Numbers of all bases."""
        return sum(shape.numel() for shape in self.buffer_shapes)

    @property
    def generated_shapes(self) -> list[torch.Size]:
        """Shapes of what the generator's vector holds: slots that belong to no pair, and cores."""
        return [self.shapes[i] for i in self.others] + self.core_shapes

    def views(self, buffer: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Return (A, U) of each pair as views of the buffer."""
        shaped = split_into(buffer, self.buffer_shapes)
        return zip(shaped[: len(self.pairs)], shaped[len(self.pairs) :], strict=True)

    def place(self, buffer: Tensor, found: Tensor, factors: Sequence[Tensor], stage: int) -> None:
        """Write the bases of a stage, counted from 0, into the buffer.

        Args:
            buffer: bases of all stages, written in place.
            found: the rows of every A of this stage, then the columns of every U, end to end.
            factors: every B as it is before, shape (n_out, rank); not read in the first stage.
            stage: number of the stage whose bases were found.
        """
        parts = found.split([shape.numel() // self.n_stages for shape in self.buffer_shapes])
        for i, (a, u) in enumerate(self.views(buffer)):
            if stage:
                u.copy_(factors[i])
            side = len(a) // self.n_stages
            now = slice(stage * side, (stage + 1) * side)
            a[now] = parts[i].view(side, -1)
            u[:, now] = parts[len(self.pairs) + i].view(-1, side)

    def tensors(self, generator: Generator, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Return every slot's tensor; the vector's cores belong to the last stage whose bases are known.

        Raises:
            RuntimeError: if no bases are known yet.
        """
        n_bases = self._n_bases(generator)
        if not n_bases:
            raise RuntimeError(
                "The adapter's gradient bases are not known yet: before training, call "
                "`trainer.add_callback(qpa_hf.trainer_callbacks.GradientBasisCallback(trainer))`, or without a "
                "Trainer `qpa_hf.initialize_basis(model, dataloader)`."
            )
        buffer = generator.frozen("basis")
        tensors = [pieces[0]] * len(self.shapes)
        n_others = len(self.others)
        for i, piece in zip(self.others, pieces[:n_others], strict=True):
            tensors[i] = piece
        with torch.autocast(buffer.device.type, enabled=False):
            for pair, (a, u), core in zip(self.pairs, self.views(buffer), pieces[n_others:], strict=True):
                tensors[pair.a] = a
                if pair.n_experts > 1:
                    tensors[pair.b] = _of_experts(u, core)
                else:
                    tensors[pair.b] = u @ core if self.n_stages == 1 else _staged(u, core, n_bases)
        return tensors

    def _n_bases(self, generator: Generator) -> int:
        """Return how many stages have bases, also where something else than loading has written them."""
        if not torch.compiler.is_compiling() and (self.n_stages > 1 or not generator.n_bases):
            generator.n_bases = generator.count_bases()
        return generator.n_bases


def _of_experts(u: Tensor, cores: Tensor) -> Tensor:
    """Return every expert's B = U R in one matrix, whose columns lie as those of U."""
    n_experts, side, _ = cores.shape
    return torch.einsum("ore,ers->ose", u.view(-1, side, n_experts), cores).reshape(u.shape)


def _staged(u: Tensor, core: Tensor, n_bases: int) -> Tensor:
    side = len(core)
    before, now, after = u.split([(n_bases - 1) * side, side, u.shape[1] - n_bases * side], dim=1)
    return torch.cat([before, now @ core, after], dim=1)
