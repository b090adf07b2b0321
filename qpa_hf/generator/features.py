"""How measured values become inputs of the mapping model."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# The authors' post-processing of a probability, from their published code: (BETA * tanh(GAMMA * 2^(N-1) * p))^ALPHA.
# The paper does not mention it.
ALPHA, BETA, GAMMA = 0.15, 0.6, 0.1

VARIANCE_FLOOR = 1e-6  # a uniform state has no variance; without a floor its features would be 0 / 0


def basis_bits(n_chunks: int, n_qubits: int) -> Tensor:
    """Return the bits of basis states 0 .. n_chunks-1 as -1/+1, shape (n_chunks, n_qubits), qubit 0 first."""
    shifts = torch.arange(n_qubits - 1, -1, -1)
    bits = (torch.arange(n_chunks)[:, None] >> shifts) & 1
    return bits.to(torch.float32) * 2 - 1


def sum_last(x: Tensor) -> Tensor:
    """Sum over the last dimension in two passes, whose order does not depend on the number of threads."""
    half = 2 ** (x.shape[-1].bit_length() // 2)
    if rest := -x.shape[-1] % half:
        x = F.pad(x, (0, rest))
    return x.unflatten(-1, (-1, half)).sum(-1).sum(-1)


def _standardized(p: Tensor) -> Tensor:
    """Zero mean and unit variance over all 2^N basis states; the mean of p * 2^N is 1 because p sums to 1."""
    centred = p * p.shape[-1] - 1
    variance = sum_last(centred * centred) / p.shape[-1]
    return centred * torch.rsqrt(variance + VARIANCE_FLOOR).unsqueeze(-1)


def _authors(p: Tensor) -> Tensor:
    """The authors' post-processing, with their mean removed over all 2^N basis states."""
    tiny = torch.finfo(p.dtype).tiny  # the power's slope is infinite at 0
    x = (BETA * torch.tanh(GAMMA * (p.shape[-1] / 2) * p)).clamp_min(tiny).pow(ALPHA)
    return x - (sum_last(x) / p.shape[-1]).unsqueeze(-1)


# "probability" is p itself, Eq. 6 of https://huggingface.co/papers/2410.09846. All take and return (n_circuits, 2^N).
FEATURES = {"standardized": _standardized, "authors": _authors, "probability": lambda p: p}
