"""How probabilities and basis states become inputs of the mapping model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from qpa_hf.reproducible import sum_last

if TYPE_CHECKING:
    from jaxtyping import Float

# The authors' post-processing of a probability, from their published code: (BETA * tanh(GAMMA * 2^(N-1) * p))^ALPHA.
# The paper does not mention it.
ALPHA = 0.15
BETA = 0.6
GAMMA = 0.1

VARIANCE_FLOOR = 1e-6  # a uniform state has no variance; without a floor its features would be 0 / 0


class Feature(NamedTuple):
    """A form of the probabilities.

    Args:
        apply: takes and returns numbers of all circuits and basis states, shape (n_circuits, 2**n_qubits).
        of_each: whether a state's number depends on that state's probability alone, so that only the states which
            have a chunk are needed.
        meaning: words for the help.
    """

    apply: Callable[[Tensor], Tensor]
    of_each: bool
    meaning: str


def basis_bits(n_chunks: int, n_qubits: int) -> Float[Tensor, "n_chunks n_qubits"]:
    """Return the bits of the first basis states as -1 and +1, qubit 0 first.

    A row is the binary form of its number, most significant bit first. For N = 2 the rows are (-1, -1), (-1, +1),
    (+1, -1) and (+1, +1).

    Args:
        n_chunks: number of basis states, from state 0 on.
        n_qubits: number of bits of each.
    """
    shifts = torch.arange(n_qubits - 1, -1, -1)
    bits = (torch.arange(n_chunks)[:, None] >> shifts) & 1
    return bits.to(torch.float32) * 2 - 1


def _standardized(p: Tensor) -> Tensor:
    """Give each circuit's numbers zero mean and unit variance over all 2^N basis states.

    Probabilities shrink as 2^-N, and a mapping model that is trained at one rate needs inputs of one size. The mean of
    p * 2^N is 1, because p sums to 1. For N = 1 the probabilities (0.75, 0.25) become (0.5, -0.5), then (1, -1).
    """
    centred = p * p.shape[-1] - 1
    variance = sum_last(centred * centred) / p.shape[-1]
    return centred * torch.rsqrt(variance + VARIANCE_FLOOR).unsqueeze(-1)


def _authors(p: Tensor) -> Tensor:
    """Apply the authors' post-processing, and remove each circuit's mean over all 2^N basis states.

    The hyperbolic tangent bounds large probabilities, and the small power lifts small ones: all inputs then have a
    similar size. The mean is removed because the power leaves nothing below zero.
    """
    tiny = torch.finfo(p.dtype).tiny  # the power's slope is infinite at 0
    x = (BETA * torch.tanh(GAMMA * (p.shape[-1] / 2) * p)).clamp_min(tiny).pow(ALPHA)
    return x - (sum_last(x) / p.shape[-1]).unsqueeze(-1)


FEATURES = {
    "standardized": Feature(_standardized, False, "p * 2^N, zero mean, unit variance"),
    "authors": Feature(_authors, False, "the post-processing in their code, which the paper does not mention"),
    "probability": Feature(lambda p: p, True, "p itself, Eq. 6"),
}
