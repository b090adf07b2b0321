"""The bases of a layer whose summed gradient is never held: a few columns of its products instead, over three passes.

The leading singular vectors of A = S_o G S_i, the preconditioned gradient, are sought by subspace iteration, and each
multiplication by A or its transpose is one pass over the examples, because G is a sum over tokens:

1. Y = G W for a random W, and the second moments that S_o and S_i are made of.
2. Z = G^T P with P = S_o orth(S_o Y), so that S_i Z is A^T times an orthonormal range of A.
3. Y = G P with P = S_i orth(S_i Z). The singular vectors of S_o Y are those of A within that range.

For a layer of 4,096 x 14,336 and rank 16, G has 59 million numbers; P and the sums have 0.7 million together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qpa_hf.accelerators import off_mps
from qpa_hf.generator.scaled_bases import damped_root, on_axes, second_moment
from qpa_hf.reproducible import seeded

SPARE_COLUMNS = 24  # beside the rank's: with them a flat spectrum's leading vectors are found to 96 % of their energy
N_PASSES = 3


def n_sketch_columns(rank: int, n_out: int, n_in: int) -> int:
    """Return how many columns a sketch has."""
    return min(rank + SPARE_COLUMNS, n_out, n_in)


class RandomColumns:
    """The random matrices of the first pass, one for all layers of a width; the same in every process and run."""

    def __init__(self) -> None:
        self._drawn: dict[tuple[int, int, torch.device], Tensor] = {}

    def like(self, rows: Tensor, n_columns: int) -> Tensor:
        """Return a matrix that rows can be multiplied by, shape (rows.shape[1], n_columns)."""
        key = (rows.shape[1], n_columns, rows.device)
        if key not in self._drawn:
            drawn = torch.randn(key[:2], dtype=torch.float32, generator=seeded(0, "gradient sketch"))
            self._drawn[key] = drawn.to(rows.device)
        return self._drawn[key]


class Sketch:
    """What is kept of one layer's gradient between and within the passes.

    Args:
        rank: number of vectors to be found on each side.
        n_columns: of a sketch (`n_sketch_columns`).
        random: what the first pass multiplies by.
    """

    def __init__(self, rank: int, n_columns: int, random: RandomColumns) -> None:
        self.rank = rank
        self.n_columns = n_columns
        self._random: RandomColumns | None = random
        self._factor = torch.empty(0)  # P, known from the second pass on
        self._is_of_outputs = True  # whether the sums are G P, or G^T P
        self._sums: list[Tensor] = []  # the product; in the first pass the moments of inputs and outputs, too
        self._roots: list[Tensor] = []  # S_i and S_o, of which a full one is kept as its lower triangle

    def add(self, x: Tensor, grad: Tensor) -> None:
        """Add some tokens.

        Args:
            x: inputs of the layer, shape (n_tokens, n_in).
            grad: gradients with respect to its outputs, shape (n_tokens, n_out).
        """
        if self._random is not None:
            factor = self._random.like(x, self.n_columns)
            self._add([grad.T @ (x @ factor), second_moment(x), second_moment(grad)])
            return
        seen, other = (x, grad) if self._is_of_outputs else (grad, x)
        self._add([other.T @ (seen @ self._factor)])

    def add_gradient(self, gradient: Tensor) -> None:
        """Add the gradient of one batch with respect to the weight, shape (n_out, n_in), where no tokens are seen.

        The batch's own rows and columns stand for the tokens' in the diagonals of the second moments.
        """
        if self._random is not None:
            factor = self._random.like(gradient, self.n_columns)
            self._add([gradient @ factor, gradient.square().sum(0), gradient.square().sum(1)])
            return
        self._add([(gradient if self._is_of_outputs else gradient.T) @ self._factor])

    def _add(self, parts: list[Tensor]) -> None:
        if not self._sums:
            self._sums = parts
            return
        for total, part in zip(self._sums, parts, strict=True):
            total.add_(part)

    def sums(self) -> list[Tensor]:
        """Return what this pass has summed, to be added up over processes in place; nothing if no token came."""
        return self._sums

    def advance(self) -> Tensor:
        """End a pass; return the matrix that the next one multiplies by, which is to be the same in every process."""
        if self._random is not None:
            self._roots = [_kept_root(off_mps(moment)) for moment in self._sums[1:]]
            self._random = None
        device = self._sums[0].device
        root = self._roots[self._is_of_outputs]
        self._factor = _times(root, torch.linalg.qr(_times(root, off_mps(self._sums[0])))[0]).to(device)
        self._is_of_outputs = not self._is_of_outputs
        self._sums = []
        return self._factor

    def bases(self) -> tuple[Tensor, Tensor]:
        """Return (A, U) as `scaled_bases` does, after the last pass."""
        factor, product, root = off_mps(self._factor), off_mps(self._sums[0]), self._roots[1]
        left, _, within = torch.linalg.svd(_times(root, product), full_matrices=False)
        turn = within[: self.rank].T
        u = torch.linalg.qr(_times(root, left[:, : self.rank]))[0]
        v, triangle = torch.linalg.qr(factor @ turn)
        # G v without G: v is P turn triangle^-1, and G P was summed.
        core = torch.linalg.solve_triangular(triangle, u.T @ product @ turn, upper=True, left=False)
        return on_axes(u, v, core)


def _kept_root(moment: Tensor) -> Tensor:
    """Return a damped second moment to the power -1/4: its diagonal, or one triangle of it, row by row."""
    values, vectors = damped_root(moment)
    if vectors is None:
        return values
    root = (vectors * values) @ vectors.T
    rows, columns = torch.tril_indices(*root.shape, device=root.device)
    return root[rows, columns]


def _times(root: Tensor, matrix: Tensor) -> Tensor:
    n = len(matrix)
    if len(root) == n:
        return root[:, None] * matrix
    rows, columns = torch.tril_indices(n, n, device=root.device)
    whole = root.new_empty(n, n)
    whole[rows, columns] = root
    whole[columns, rows] = root
    return whole @ matrix
