"""The noise channels, as Kraus operators and as Pauli transfer matrices.

A transfer matrix maps the expectations of (I, X, Y, Z) before a channel to those after it; it is real, and noise is
nearly diagonal in it. Everything here is float64 and made once for each device: no angle enters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from qpa_hf.measurement.noise.snapshot import Qubit

if TYPE_CHECKING:
    from jaxtyping import Complex, Float

PAULIS = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]).to(
    torch.complex128
)  # (4, 2, 2)
MAX_DEPOLARIZING = {1: 4 / 3, 2: 16 / 15}  # by number of qubits; beyond, a probability would be negative


def damping_and_flip(time: float, t1: float, t2: float) -> tuple[float, float]:
    """Return thermal relaxation towards |0> as amplitude damping followed by a phase flip.

    Args:
        time: the time in seconds during which the qubit relaxes.
        t1: the relaxation time of the qubit in seconds; infinity for none.
        t2: the dephasing time of the qubit in seconds, at most 2 * t1.

    Returns:
        The probability that |1> decays, and that of a Z.

    Raises:
        ValueError: if `time` is negative, or t1 and t2 belong to no channel.
    """
    if not (time >= 0 and 0 < t2 <= 2 * t1 * (1 + 1e-12)):
        raise ValueError(
            f"`time`={time}, `t1`={t1}, `t2`={t2} belong to no channel. Use time >= 0 and 0 < t2 <= 2 * t1."
        )
    # Damping alone shrinks the coherences by exp(-t / 2 T1); the device's shrink by exp(-t / T2). A flip with the
    # probability q multiplies them by 1 - 2 q, so q makes up for what is missing. expm1 keeps the digits of short
    # times.
    flip = -math.expm1(time / (2 * t1) - time / t2) / 2
    return -math.expm1(-time / t1), max(flip, 0.0)


def relaxation_kraus(time: float, t1: float, t2: float) -> Complex[Tensor, "4 2 2"]:
    """Return the Kraus operators of thermal relaxation at temperature 0, shape (4, 2, 2); see `damping_and_flip`."""
    decay, flip = damping_and_flip(time, t1, t2)
    damping = torch.zeros(2, 2, 2, dtype=torch.complex128)
    damping[0, 0, 0] = 1
    damping[0, 1, 1] = math.sqrt(1 - decay)
    damping[1, 0, 1] = math.sqrt(decay)
    phases = torch.stack((PAULIS[0] * math.sqrt(1 - flip), PAULIS[3] * math.sqrt(flip)))
    return (phases[:, None] @ damping).flatten(0, 1)


def transfer_matrix(kraus: Complex[Tensor, "n 2 2"]) -> Float[Tensor, "4 4"]:
    """Return the Pauli transfer matrix of a channel on one qubit.

    Args:
        kraus: the Kraus operators of the channel, (n, 2, 2).

    Returns:
        Shape (4, 4), real.
    """
    # Entry (i, j) is tr(P_i E(P_j)) / 2. The channel is applied to all four Paulis at once, and read off in each.
    moved = torch.einsum("kab,jbc,kdc->jad", kraus, PAULIS, kraus.conj())  # (4, 2, 2)
    return torch.einsum("iab,jba->ij", PAULIS, moved).real / 2


Draws = Iterator[Tensor]  # uniform on [0, 1), each (B,): one number for each trajectory


class Channel(NamedTuple):
    """What happens to a qubit while time passes: during its gates, and while it waits for others'.

    Args:
        kraus: a function from a time in seconds and a qubit to the Kraus operators, shape (n, 2, 2), complex128.
        draw: a function from the reduced density matrices of a qubit in B trajectories, (B, 2, 2), the time, the qubit
            and uniform random numbers to an operator for each trajectory, (B, 2, 2), over the root of its
            probability. None draws one of the Kraus operators, with the probabilities that the states give.
        n_draws: the number of random numbers that `draw` takes.
    """

    kraus: Callable[[float, Qubit], Tensor]
    draw: Callable[[Tensor, float, Qubit, Draws], Tensor] | None = None
    n_draws: int = 1

    def drawn(self, rho: Tensor, time: float, qubit: Qubit, draws: Draws) -> Tensor:
        """Return the operators that happen, (B, 2, 2); see `draw`."""
        if self.draw is not None:
            return self.draw(rho, time, qubit, draws)
        # Operator K happens with the probability tr(K rho K+). Dividing it by the root keeps the states' norms, so
        # that every trajectory counts alike in the average.
        kraus = self.kraus(time, qubit).to(rho)
        happens = torch.einsum("kij,bjl,kil->bk", kraus, rho, kraus.conj()).real.clamp_min(0)
        bounds = happens.cumsum(1)
        # Against the sum, which is one but for rounding: the last operator is never drawn in vain.
        index = (next(draws)[:, None] * bounds[:, -1:] >= bounds[:, :-1]).sum(1)
        probability = happens.gather(1, index[:, None]) / bounds[:, -1:]
        return kraus[index] * probability.rsqrt()[..., None]


def _draw_relaxation(rho: Tensor, time: float, qubit: Qubit, draws: Draws) -> Tensor:
    """Draw whether a qubit decays, which depends on how much of it is in |1>, and whether it is flipped about Z."""
    # Written out, because it is drawn after every gate: two comparisons in place of products with four operators.
    decay, flip = damping_and_flip(time, qubit.t1, qubit.t2)
    p_decay = (decay * rho[:, 1, 1].real / rho.diagonal(dim1=1, dim2=2).real.sum(-1)).clamp(0, 1)
    has_decayed = next(draws) < p_decay
    sign = 1 - 2 * (next(draws) < flip).to(p_decay.dtype)
    scale = torch.where(has_decayed, p_decay, 1 - p_decay).rsqrt()
    stays = (~has_decayed).to(p_decay.dtype) * scale
    kraus = torch.zeros_like(rho)
    kraus[:, 0, 0] = stays
    kraus[:, 1, 1] = stays * math.sqrt(1 - decay) * sign
    kraus[:, 0, 1] = torch.where(has_decayed, math.sqrt(decay) * scale, 0)
    return kraus


# One after the other in this order. A channel more is an entry here and, if it needs a figure that is not calibrated
# yet, a field of `Qubit`; density matrices, trajectories and the gates' depolarising strengths all read this table.
CHANNELS: dict[str, Channel] = {
    "relaxation": Channel(lambda time, qubit: relaxation_kraus(time, qubit.t1, qubit.t2), _draw_relaxation, n_draws=2),
}


def passing_matrix(time: float, qubit: Qubit) -> Float[Tensor, "4 4"]:
    """Return the transfer matrix of all channels of a qubit in a time in seconds."""
    matrices = (transfer_matrix(channel.kraus(time, qubit)) for channel in CHANNELS.values())
    return functools.reduce(lambda earlier, later: later @ earlier, matrices)


def depolarizing_strength(error: float, passing: list[Tensor]) -> float:
    """Return how much a gate depolarises beyond what its duration does to its qubits, 0 if that is all.

    The same rule as in Aer's device model: with relaxation, the average gate infidelity is `error`.

    Args:
        error: the average infidelity of the gate as calibrated.
        passing: the transfer matrices of what happens to its qubits while it lasts, each (4, 4); see `passing_matrix`.
    """
    # A channel on d states with process fidelity f has the average fidelity (d f + 1) / (d + 1), and f is the trace of
    # the transfer matrix over d^2. Depolarising takes the channel towards the mean 1 / d, and closes the gap.
    dim = 2 ** len(passing)
    process = math.prod(float(matrix.trace()) for matrix in passing) / dim**2
    fidelity = (dim * process + 1) / (dim + 1)
    missing = min(error, dim / (dim + 1)) - (1 - fidelity)
    if missing <= 0:
        return 0.0
    return min(dim * missing / (dim * fidelity - 1), MAX_DEPOLARIZING[len(passing)])


def readout_matrix(false_one: float, false_zero: float) -> Float[Tensor, "2 2"]:
    """Return the probabilities to read 0 and 1 (rows) where 0 and 1 were there (columns), shape (2, 2)."""
    return torch.tensor([[1 - false_one, false_zero], [false_one, 1 - false_zero]], dtype=torch.float64)
