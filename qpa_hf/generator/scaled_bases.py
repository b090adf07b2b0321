"""The bases of a layer, from its gradient and second moments as they were summed over examples."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from qpa_hf.accelerators import off_mps

EXACT_SVD = 1024  # a larger matrix is decomposed by random projection, whose leading vectors are the same
OVERSAMPLING = 16  # vectors beside the leading ones, which make these exact
POWER_ITERATIONS = 4
DAMPING = 0.1  # of a second moment, as a share of its mean eigenvalue


class Moments(NamedTuple):
    """What a layer's bases are found from, summed over examples.

    Args:
        gradient: gradient of the loss with respect to the layer's weight, shape (n_out, n_in).
        inputs: `second_moment` of the layer's inputs.
        outputs: `second_moment` of the gradients with respect to the layer's outputs.
    """

    gradient: Tensor
    inputs: Tensor
    outputs: Tensor


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
        moments: sums that the layer's bases are found from.
        rank: number of vectors on each side, at most min(n_out, n_in).
    """
    gradient, inputs, outputs = map(off_mps, moments)
    scaled = _scaled(outputs, _scaled(inputs, gradient.T).T)
    left, right = _leading(scaled, rank)
    # Back from the preconditioned space, where the vectors are orthogonal, to that of the weight, where they are not.
    u = torch.linalg.qr(_scaled(outputs, left))[0]
    v = torch.linalg.qr(_scaled(inputs, right))[0]
    return on_axes(u, v, u.T @ gradient @ v)


def on_axes(u: Tensor, v: Tensor, core: Tensor) -> tuple[Tensor, Tensor]:
    """Return (A, U) on the axes that make the gradient's core diagonal, on the scales of `scaled_bases`.

    Args:
        u: orthonormal columns on the side of the outputs, shape (n_out, rank).
        v: orthonormal columns on the side of the inputs, shape (n_in, rank).
        core: the gradient between them, u^T G v, shape (rank, rank).
    """
    turn_u, _, turn_v = torch.linalg.svd(core)
    return turn_v @ v.T / math.sqrt(3), u @ turn_u * math.sqrt(len(u) / u.shape[1])


def damped_root(moment: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the eigenvalues of a damped second moment to the power -1/4, and its eigenvectors, None of a diagonal."""
    values, vectors = (moment, None) if moment.dim() == 1 else torch.linalg.eigh(moment)
    damped = (values.clamp_min(0) + DAMPING * values.mean()).clamp_min(torch.finfo(values.dtype).tiny)
    return damped.pow(-0.25), vectors


def _scaled(moment: Tensor, matrix: Tensor) -> Tensor:
    """Return a damped second moment to the power -1/4 times a matrix."""
    values, vectors = damped_root(moment)
    if vectors is None:
        return values[:, None] * matrix
    return vectors @ (values[:, None] * (vectors.T @ matrix))


def _leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return leading singular vectors as columns, (n_rows, rank) and (n_columns, rank)."""
    if min(matrix.shape) <= EXACT_SVD:
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        return left[:, :rank], right[:rank].T
    with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
        # The randomised decomposition starts from random vectors. No other device's generator is touched.
        rng = torch.cuda.default_generators[matrix.get_device()] if matrix.is_cuda else torch.default_generator
        rng.manual_seed(0)
        n_vectors = min(rank + OVERSAMPLING, *matrix.shape)
        left, _, right = torch.svd_lowrank(matrix, q=n_vectors, niter=POWER_ITERATIONS)
    return left[:, :rank], right[:, :rank]
