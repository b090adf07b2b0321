"""What finding gradient bases costs beside the model and its activations, by the layers' sizes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from qpa_hf.generator import FLOAT_BYTES, FrozenBases, n_sketch_columns
from qpa_hf.generator.scaled_bases import EXACT_SVD
from qpa_hf.generator.sketches import N_PASSES

EXACT_BYTES = 2**29  # of all adapted weights' gradients; that of GPT-2's 124 million weights fits


class LayerSize(NamedTuple):
    """The sizes of a layer's bases.

    Args:
        rank: number of vectors on each side.
        n_out: numbers of an output.
        n_in: numbers of an input.
        n_experts: weights of that shape that the layer has.
    """

    rank: int
    n_out: int
    n_in: int
    n_experts: int = 1

    @property
    def n_gradient(self) -> int:
        """Numbers of the gradients of the layer's weights."""
        return self.n_experts * self.n_out * self.n_in

    @property
    def n_columns(self) -> int:
        """Columns of a sketch of one of the gradients; 0 where the gradient itself is smaller than its sketches."""
        n_columns = n_sketch_columns(self.rank, self.n_out, self.n_in)
        return n_columns if (self.n_out + self.n_in) * n_columns < self.n_out * self.n_in else 0

    @property
    def n_sides(self) -> int:
        """Numbers of one column and one row of each of the weights."""
        return self.n_experts * (self.n_out + self.n_in)

    def n_moments(self, is_packed: bool) -> int:
        """Return the numbers of the second moments, or of their roots, of which one triangle is kept."""
        n_each = [_n_moment(n, is_packed) if self.n_experts == 1 else n for n in (self.n_out, self.n_in)]
        return self.n_experts * sum(n_each)


def layer_sizes(bases: FrozenBases) -> list[LayerSize]:
    """Return the sizes of one stage's bases, in their order."""
    n = len(bases.pairs)
    parts = zip(bases.core_shapes, bases.pairs, bases.buffer_shapes[:n], bases.buffer_shapes[n:], strict=True)
    return [LayerSize(core[-1], u[0], a[1], pair.n_experts) for core, pair, a, u in parts]


class BasisCost(NamedTuple):
    """What finding bases costs.

    Args:
        n_bytes: at the peak, beside the model and its activations.
        n_passes: forward and backward passes over the examples.
    """

    n_bytes: int
    n_passes: int


def _n_moment(n: int, is_packed: bool) -> int:
    if n > EXACT_SVD:
        return n
    return n * (n + 1) // 2 if is_packed else n * n


def has_sketches(sizes: Iterable[LayerSize], exact_bytes: int) -> bool:
    """Whether bases are found from sketches, because whole gradients would take more than `exact_bytes`."""
    sizes = list(sizes)
    return FLOAT_BYTES * sum(size.n_gradient for size in sizes) > exact_bytes and any(s.n_columns for s in sizes)


def basis_cost(sizes: Iterable[LayerSize], exact_bytes: int = EXACT_BYTES) -> BasisCost:
    """Return what finding the bases of some layers costs.

    Args:
        sizes: sizes of all adapted layers.
        exact_bytes: most bytes of whole gradients, as of `initialize_basis`.

    Example:
        >>> basis_cost([LayerSize(16, 14_336, 4096)] * 10)
        BasisCost(n_bytes=39403520, n_passes=3)
    """
    sizes = list(sizes)
    is_sketched = has_sketches(sizes, exact_bytes)
    sketched = [size for size in sizes if is_sketched and size.n_columns]
    whole = [size for size in sizes if not (is_sketched and size.n_columns)]
    # Beside a sum there is what one batch adds to it, and beside a decomposition what it works on.
    working = max((4 * size.n_columns * max(size.n_out, size.n_in) for size in sketched), default=0)
    working = max([working, *(2 * size.n_out * size.n_in for size in whole)])
    # The gradient of a Parameter that experts share is there for a moment.
    working = max([working, *(size.n_gradient for size in sizes if size.n_experts > 1)])
    ends = 2 * sum(size.rank * size.n_sides for size in sizes)  # all bases, and the vector that they are put into
    first = sum(size.n_gradient + size.n_moments(is_packed=False) for size in whole)
    first += sum(size.n_experts * size.n_columns * size.n_out + size.n_moments(is_packed=False) for size in sketched)
    first += sum(n_in * n_columns for n_in, n_columns in {(size.n_in, size.n_columns) for size in sketched})
    later = sum(size.n_columns * size.n_sides + size.n_moments(is_packed=True) for size in sketched)
    later += sum(size.rank * size.n_sides for size in whole) if sketched else 0
    return BasisCost(FLOAT_BYTES * max(first + working, later + working, ends), N_PASSES if sketched else 1)
