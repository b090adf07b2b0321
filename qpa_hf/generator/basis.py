"""Frozen bases: a small generated core R becomes the pair of factors (A, U R), of which only R is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from qpa_hf.generator.mapping import cut

EXACT_SVD = 1024  # a larger matrix is decomposed by random projection, whose leading vectors are the same
OVERSAMPLING, POWER_ITERATIONS = 16, 4
DAMPING = 0.1  # of a second moment, as a share of its mean eigenvalue


class Pair(NamedTuple):
    """Two slots that stand on frozen bases.

    Args:
        a: number of the slot that holds A, shape (rank, n_in).
        b: number of the slot that holds B = U R, shape (n_out, rank).
    """

    a: int
    b: int


class Moments(NamedTuple):
    """What a layer's bases are found from, summed over examples.

    Args:
        gradient: of the loss with respect to the layer's weight, shape (n_out, n_in).
        inputs: `second_moment` of the layer's inputs.
        outputs: that of the gradients with respect to the layer's outputs.
    """

    gradient: Tensor
    inputs: Tensor
    outputs: Tensor


class Basis:
    """Where the bases lie in a generator's `basis` buffer, and how they become tensors together with its cores.

    The buffer holds every A, then every U (n_out, rank), end to end in the order of the pairs. The generator's vector
    holds the slots that belong to no pair, then the cores, which are square.

    Where bases are found in several stages, each has its own rows of A and columns of U, and a core between them. In
    the columns of stages that are over, U is already multiplied by their cores; those to come are zero.

    Args:
        shapes: shape of every slot, those of pairs last but for their As.
        pairs: the slots that stand on bases.
        n_stages: how often bases are found; divides every rank.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], pairs: Sequence[Pair], n_stages: int = 1) -> None:
        self.pairs = list(pairs)
        paired = {index for pair in pairs for index in pair}
        self.others = [i for i in range(len(shapes)) if i not in paired]
        self.shapes = [torch.Size(shape) for shape in shapes]
        self.n_stages = n_stages
        sides = [shapes[pair.a][0] // n_stages for pair in pairs]
        self.core_shapes = [torch.Size((side, side)) for side in sides]
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
        shaped = cut(buffer, self.buffer_shapes)
        return zip(shaped[: len(self.pairs)], shaped[len(self.pairs) :], strict=True)

    def place(self, buffer: Tensor, found: Tensor, factors: Sequence[Tensor], stage: int) -> None:
        """Write the bases of a stage, counted from 0, into the buffer.

        Args:
            buffer: of all stages.
            found: the rows of every A of this stage, then the columns of every U, end to end.
            factors: every B as it is before, shape (n_out, rank); not read in the first stage.
            stage: whose bases they are.
        """
        parts = found.split([shape.numel() // self.n_stages for shape in self.buffer_shapes])
        for i, (a, u) in enumerate(self.views(buffer)):
            if stage:
                u.copy_(factors[i])
            side = self.core_shapes[i][0]
            now = slice(stage * side, (stage + 1) * side)
            a[now] = parts[i].view(side, -1)
            u[:, now] = parts[len(self.pairs) + i].view(-1, side)

    def tensors(self, buffer: Tensor, pieces: Sequence[Tensor], n_bases: int) -> list[Tensor]:
        """Return every slot's tensor from the buffer and the pieces of the generator's vector.

        Args:
            buffer: of all stages.
            pieces: tensors of `generated_shapes`.
            n_bases: number of stages whose bases are known; the vector's cores belong to the last of them.
        """
        tensors = [pieces[0]] * len(self.shapes)
        n_others = len(self.others)
        for i, piece in zip(self.others, pieces[:n_others], strict=True):
            tensors[i] = piece
        with torch.autocast(buffer.device.type, enabled=False):
            for pair, (a, u), core in zip(self.pairs, self.views(buffer), pieces[n_others:], strict=True):
                tensors[pair.a] = a
                tensors[pair.b] = u @ core if self.n_stages == 1 else _staged(u, core, n_bases)
        return tensors


def _staged(u: Tensor, core: Tensor, n_bases: int) -> Tensor:
    side = len(core)
    before, now, after = u.split([(n_bases - 1) * side, side, u.shape[1] - n_bases * side], dim=1)
    return torch.cat([before, now @ core, after], dim=1)


def second_moment(rows: Tensor) -> Tensor:
    """Return the summed products of a layer's inputs, or of its outputs' gradients, with themselves.

    Args:
        rows: one for each token, shape (n_tokens, n).

    Returns:
        Shape (n, n), or for more than `EXACT_SVD` numbers a token only the diagonal, (n,).
    """
    return rows.T @ rows if rows.shape[1] <= EXACT_SVD else rows.square().sum(0)


def scaled_bases(moments: Moments, rank: int) -> tuple[Tensor, Tensor]:
    """Return (A, U) that span the leading singular vectors of a layer's preconditioned gradient.

    The gradient of the loss with respect to the layer's weight is multiplied, on either side, by a second moment to
    the power -1/4, as in Shampoo (https://huggingface.co/papers/1802.09568) with the factors of K-FAC
    (https://huggingface.co/papers/1503.05671): directions that are large in every example count for less. Within
    what the vectors span, the axes are the singular vectors of the gradient itself.

    A's rows have the mean energy of Kaiming's initialisation (1/3), U's columns sqrt(n_out / rank), so that a core
    is changed by the same learning rates as LoRA's B.

    Args:
        moments: of the layer.
        rank: at most min(n_out, n_in).
    """
    gradient, inputs, outputs = moments
    scaled = _scaled(outputs, _scaled(inputs, gradient.T).T)
    left, right = _leading(scaled, rank)
    u, v = (torch.linalg.qr(_scaled(moment, vectors))[0] for moment, vectors in ((outputs, left), (inputs, right)))
    turn_u, _, turn_v = torch.linalg.svd(u.T @ gradient @ v)
    return turn_v @ v.T / math.sqrt(3), u @ turn_u * math.sqrt(len(u) / rank)


def _scaled(moment: Tensor, matrix: Tensor) -> Tensor:
    """Return a damped second moment to the power -1/4 times a matrix."""
    values, vectors = (moment, None) if moment.dim() == 1 else torch.linalg.eigh(moment)
    damped = (values.clamp_min(0) + DAMPING * values.mean()).clamp_min(torch.finfo(values.dtype).tiny)
    if vectors is None:
        return damped.pow(-0.25)[:, None] * matrix
    return vectors @ (damped.pow(-0.25)[:, None] * (vectors.T @ matrix))


def _leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return leading singular vectors as columns, (n_rows, rank) and (n_columns, rank)."""
    if min(matrix.shape) <= EXACT_SVD:
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :rank], right[:rank].T
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        torch.manual_seed(0)  # the randomised decomposition starts from random vectors
        n_vectors = min(rank + OVERSAMPLING, *matrix.shape)
        left, _, right = torch.svd_lowrank(matrix, q=n_vectors, niter=POWER_ITERATIONS)
    return left[:, :rank], right[:, :rank]
