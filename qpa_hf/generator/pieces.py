"""How a generator's vector becomes tensors: a slot is a piece of it, or a piece that is scaled and shifted."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from qpa_hf.generator.generator import Generator


class Pieces:
    """Slots that are the pieces of the vector themselves.

    Args:
        shapes: shape of each slot, in the order of the vector.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = [torch.Size(shape) for shape in shapes]

    @property
    def generated_shapes(self) -> list[torch.Size]:
        """Shapes of the pieces that the vector is split into."""
        return self.shapes

    @property
    def n_buffer(self) -> int:
        """Count of the frozen numbers that the generator keeps for the slots."""
        return 0

    def tensors(self, generator: Generator, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Return every slot's tensor.

        Args:
            generator: the generator that has made the pieces.
            pieces: tensors of `generated_shapes`.
        """
        return list(pieces)


class ScaledPieces(Pieces):
    """Slots that are pieces of the vector times the generator's buffer `scale[i]`, plus its buffer `shift[i]`."""

    def tensors(self, generator: Generator, pieces: Sequence[Tensor]) -> list[Tensor]:
        scale = generator.get_buffer("scale")
        shift = generator.get_buffer("shift")
        return [piece * scale[i] + shift[i] for i, piece in enumerate(pieces)]
