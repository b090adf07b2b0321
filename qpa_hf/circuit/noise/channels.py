"""The noise channels, as Kraus operators and as Pauli transfer matrices.

A transfer matrix maps the expectations of (I, X, Y, Z) before a channel to those after it; it is real, and noise is
nearly diagonal in it. Everything here is float64 and made once for each device: no angle enters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PAULIS = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]).to(
    torch.complex128
)  # (4, 2, 2)
MAX_DEPOLARIZING = {1: 4 / 3, 2: 16 / 15}  # by number of qubits; beyond, a probability would be negative


def damping_and_flip(time: float, t1: float, t2: float) -> tuple[float, float]:
    """Return thermal relaxation towards |0> as amplitude damping followed by a phase flip.

    Args:
        time: how long the qubit relaxes, in seconds.
        t1: its relaxation time; infinity for none.
        t2: its dephasing time, at most 2 * t1.

    Returns:
        The probability that |1> decays, and that of a Z.

    Raises:
        ValueError: if `time` is negative, or t1 and t2 belong to no channel.
    """
    if not (time >= 0 and 0 < t2 <= 2 * t1 * (1 + 1e-12)):
        raise ValueError(
            f"`time`={time}, `t1`={t1}, `t2`={t2} belong to no channel. Use time >= 0 and 0 < t2 <= 2 * t1."
        )
    flip = -math.expm1(time / (2 * t1) - time / t2) / 2
    return -math.expm1(-time / t1), max(flip, 0.0)


def relaxation_kraus(time: float, t1: float, t2: float) -> Tensor:
    """Return the Kraus operators of thermal relaxation at temperature 0, shape (4, 2, 2); see `damping_and_flip`."""
    decay, flip = damping_and_flip(time, t1, t2)
    damping = torch.zeros(2, 2, 2, dtype=torch.complex128)
    damping[0, 0, 0], damping[0, 1, 1], damping[1, 0, 1] = 1, math.sqrt(1 - decay), math.sqrt(decay)
    phases = torch.stack((PAULIS[0] * math.sqrt(1 - flip), PAULIS[3] * math.sqrt(flip)))
    return (phases[:, None] @ damping).flatten(0, 1)


def transfer_matrix(kraus: Tensor) -> Tensor:
    """Return the Pauli transfer matrix of a channel on one qubit.

    Args:
        kraus: its Kraus operators, (n, 2, 2).

    Returns:
        Shape (4, 4), real.
    """
    moved = torch.einsum("kab,jbc,kdc->jad", kraus, PAULIS, kraus.conj())  # (4, 2, 2)
    return torch.einsum("iab,jba->ij", PAULIS, moved).real / 2


def relaxation_matrix(time: float, t1: float, t2: float) -> Tensor:
    """Return the transfer matrix of thermal relaxation at temperature 0, shape (4, 4); see `damping_and_flip`."""
    return transfer_matrix(relaxation_kraus(time, t1, t2))


def depolarizing_strength(error: float, relaxations: list[Tensor]) -> float:
    """Return how much a gate depolarises beyond what relaxation during the gate does, 0 if relaxation is all.

    The same rule as in Aer's device model: with the relaxation, the average gate infidelity is `error`.

    Args:
        error: the gate's average infidelity as calibrated.
        relaxations: transfer matrices of the relaxation of its qubits while it lasts, each (4, 4).
    """
    dim = 2 ** len(relaxations)
    process = math.prod(float(matrix.trace()) for matrix in relaxations) / dim**2
    fidelity = (dim * process + 1) / (dim + 1)
    missing = min(error, dim / (dim + 1)) - (1 - fidelity)
    if missing <= 0:
        return 0.0
    return min(dim * missing / (dim * fidelity - 1), MAX_DEPOLARIZING[len(relaxations)])


def readout_matrix(false_one: float, false_zero: float) -> Tensor:
    """Return the probabilities to read 0 and 1 (rows) where 0 and 1 were there (columns), shape (2, 2)."""
    return torch.tensor([[1 - false_one, false_zero], [false_one, 1 - false_zero]], dtype=torch.float64)
