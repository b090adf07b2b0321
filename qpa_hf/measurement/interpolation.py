"""Generative interpolation: estimates for basis states that too few shots have missed, from their neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from qpa_hf.reproducible import sum_last

if TYPE_CHECKING:
    from jaxtyping import Float

HIDDEN_WIDTH = 16


class Shares(NamedTuple):
    """What an interpolation knows: the shares that were measured, and what it needs beside them.

    Args:
        shares: the measured shares of the shots, shape (n_circuits, 2**n_qubits).
        shots: the number of shots of each circuit.
        layers: the weights and biases of the network F; empty if the interpolation has none.
        noise: fixed uniform numbers, shape (n_circuits, 2**n_qubits); None if the interpolation has none.
    """

    shares: Float[Tensor, "n_circuits n_states"]
    shots: int
    layers: Sequence[tuple[Tensor, Tensor]]
    noise: Float[Tensor, "n_circuits n_states"] | None

    def neighbours(self) -> Float[Tensor, "n_circuits n_states n_qubits"]:
        """Return the shares of the states at Hamming distance 1, shape (n_circuits, 2**n_qubits, n_qubits)."""
        # A neighbour differs in one bit. For N = 2 the neighbours of 00 are 10 and 01, those of 01 are 11 and 00.
        n_states = self.shares.shape[-1]
        bits = 2 ** torch.arange(n_states.bit_length() - 2, -1, -1, device=self.shares.device)  # qubit 0 first
        return self.shares[:, torch.arange(n_states, device=self.shares.device)[:, None] ^ bits]

    def estimates(self) -> Float[Tensor, "n_circuits n_states"]:
        """Return what F makes of each state's neighbours, in counts: positive, shape (n_circuits, 2**n_qubits)."""
        # One network serves all states, and sees no bits: what it learns about neighbours holds for states that it
        # never saw. Softplus keeps the estimates positive, as counts are.
        (w0, b0), (w1, b1) = self.layers
        relative = self.neighbours() * self.shares.shape[-1]  # to the uniform distribution
        return F.softplus(F.linear(F.gelu(F.linear(relative, w0, b0)), w1, b1)).squeeze(-1)

    def where_missed(self, values: Tensor) -> Tensor:
        """Return the shares, with `values` where a state has no counts."""
        return torch.where(self.shares > 0, self.shares, values)


# Each returns numbers proportional to the interpolated probabilities. An estimate in counts, divided by the shots,
# vanishes as shots grow, so the limit is the exact probability, also of a state that is never measured.
INTERPOLATIONS: dict[str, Callable[[Shares], Tensor]] = {
    "none": lambda m: m.shares,
    "network": lambda m: m.where_missed(m.estimates() / m.shots),
    "blend": lambda m: m.shares + m.estimates() / m.shots,
    "laplace": lambda m: m.shares + 1 / m.shots,
    "neighbours": lambda m: m.where_missed(m.neighbours().mean(-1)),
    "random": lambda m: m.where_missed(m.noise / m.shots if m.noise is not None else m.shares),
}
TRAINED = ("network", "blend")


def layer_shapes(interpolation: str, n_qubits: int) -> list[tuple[int, int]]:
    """Return (out, in) of each linear layer of the network F."""
    return [(HIDDEN_WIDTH, n_qubits), (1, HIDDEN_WIDTH)] if interpolation in TRAINED else []


def interpolate(interpolation: str, given: Shares) -> Float[Tensor, "n_circuits n_states"]:
    """Return estimates of the probabilities of all basis states, summing to 1.

    - "none": the shares as measured.
    - "network": a state without counts gets F of its N neighbours at Hamming distance 1.
    - "blend": every state gets F's estimate beside its own counts, as if F's were counts of earlier shots; the more
      often a state was measured, the less F says.
    - "laplace", "neighbours", "random": baselines. One count more for every state; the neighbours' mean, or a fixed
      random number below one count, for states without counts.

    Blending measured and estimated values of all states is the idea of hybrid parameterised quantum states
    (https://arxiv.org/abs/2505.16676); that F's estimates count as shots is ours.

    Args:
        interpolation: the name of the interpolation, a key of `INTERPOLATIONS`.
        given: the measured shares, and what the interpolation needs beside them.
    """
    if interpolation == "none":
        return given.shares
    values = INTERPOLATIONS[interpolation](given)
    return values / sum_last(values).unsqueeze(-1)
