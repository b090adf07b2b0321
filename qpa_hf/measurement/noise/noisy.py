"""`noisy_probabilities`: what a noisy device would read, with gradients, from its calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpa_hf.circuit.probabilities import flat_angles
from qpa_hf.measurement.noise.density import density_probabilities
from qpa_hf.measurement.noise.snapshot import Snapshot, find_snapshot
from qpa_hf.measurement.noise.trajectories import trajectory_probabilities
from qpa_hf.messages import whole_number

if TYPE_CHECKING:
    from jaxtyping import Float

MAX_DENSITY_QUBITS = 10  # a density matrix of one qubit more takes four times as long
N_TRAJECTORIES = 256


def noisy_probabilities(
    angles: Float[Tensor, "*batch n_qubits"],
    ansatz: str = "ry_cnot",
    device: str | Snapshot = "torino",
    n_states: int | None = None,
    n_trajectories: int = N_TRAJECTORIES,
    seed: int = 0,
) -> Float[Tensor, "*batch n_states"]:
    """Return the probabilities of what a noisy device reads, from the calibration that its snapshot has.

    Every gate of the circuit as the device runs it depolarises its qubits and takes time; qubits relax in that time
    and while they wait, each with its own T1 and T2; readout confuses 0 and 1. Up to 10 qubits this is the density
    matrix, exactly; beyond, an average of trajectories, unbiased as its gradient is. Nothing but torch is needed.

    Args:
        angles: the rotation angles in radians, float32 or float64, shape (..., depth, n_qubits), or (..., depth,
            n_rotations, n_qubits) for an ansatz of several rotations; leading dimensions are independent circuits.
        ansatz: the gate pattern, a key of `ANSATZE`.
        device: the device, "torino", "fez", or a `Snapshot`.
        n_states: the number of basis states to return, the first ones; all 2**n_qubits if None.
        n_trajectories: the number of trajectories of each circuit of more than 10 qubits.
        seed: the seed of their random draws; the same seed draws the same errors.

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
    snapshot = find_snapshot(device)
    n_qubits = angles.shape[-1]
    n_trajectories = whole_number("n_trajectories", n_trajectories)
    flat = layers.flatten(1, 2)  # (C, S, N)
    # Hundreds of products follow one another, whose rounding in bfloat16 would pass for noise.
    with torch.autocast(angles.device.type, enabled=False):
        if n_qubits <= MAX_DENSITY_QUBITS:
            p = density_probabilities(flat, ansatz, snapshot)
        else:
            p = trajectory_probabilities(flat, ansatz, snapshot, n_trajectories, seed)
    return p[:, :n_states].reshape(*batch, -1)
