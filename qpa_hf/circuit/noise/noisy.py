"""`noisy_probabilities`: what a noisy device would read, with gradients, from its calibration."""

from __future__ import annotations

import torch
from torch import Tensor

from qpa_hf.circuit.noise.density import density_probabilities
from qpa_hf.circuit.noise.snapshot import Snapshot, find_snapshot
from qpa_hf.circuit.noise.trajectories import trajectory_probabilities
from qpa_hf.circuit.probabilities import flat_angles
from qpa_hf.whole_number import whole_number

MAX_DENSITY_QUBITS = 10  # a density matrix of one qubit more takes four times as long
N_TRAJECTORIES = 256


def noisy_probabilities(
    angles: Tensor,
    ansatz: str = "ry_cnot",
    device: str | Snapshot = "torino",
    n_states: int | None = None,
    n_trajectories: int = N_TRAJECTORIES,
    seed: int = 0,
) -> Tensor:
    """Return the probabilities of what a noisy device reads, from the calibration that its snapshot has.

    Every gate of the circuit as the device runs it depolarises its qubits and takes time; qubits relax in that time
    and while they wait, each with its own T1 and T2; readout confuses 0 and 1. Up to 10 qubits this is the density
    matrix, exactly; beyond, an average of trajectories, unbiased as its gradient is. Nothing but torch is needed.

    Args:
        angles: float32 or float64, radians, shape (..., depth, n_qubits), or (..., depth, 2, n_qubits) for the
            two-rotation ansätze; leading dimensions are independent circuits.
        ansatz: a key of `ANSATZE`.
        device: "torino", "fez", or a `Snapshot`.
        n_states: return only the first `n_states` basis states; all 2**n_qubits if None.
        n_trajectories: of each circuit of more than 10 qubits.
        seed: of their random draws; the same seed draws the same errors.

    Returns:
        Probabilities, shape (..., 2**n_qubits) or (..., n_states), of the angles' dtype. Qubit 0 is the most
        significant bit of the index.

    Raises:
        TypeError: if `angles` is not a float32 or float64 tensor.
        ValueError: for an unknown ansatz or device, a wrong shape, more states than there are, angles that are not
            finite, a circuit wider than the device, or no trajectories.

    Example:
        >>> p = noisy_probabilities(torch.tensor([[torch.pi, 0.0]]), device="torino")  # |11> without noise
        >>> p.argmax().item(), bool(0.9 < p[3] < 1)
        (3, True)
    """
    layers, batch = flat_angles(angles, ansatz, n_states)
    snapshot, n_qubits = find_snapshot(device), angles.shape[-1]
    n_trajectories = whole_number("n_trajectories", n_trajectories)
    flat = layers.flatten(1, 2)  # (C, S, N)
    with torch.autocast(angles.device.type, enabled=False):
        if n_qubits <= MAX_DENSITY_QUBITS:
            p = density_probabilities(flat, ansatz, snapshot)
        else:
            p = trajectory_probabilities(flat, ansatz, snapshot, n_trajectories, seed)
    return p[:, :n_states].reshape(*batch, -1)
