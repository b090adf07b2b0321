"""Circuits as a noisy device would run them: probabilities with gradients, in torch alone."""

from qpa_hf.measurement.noise.native import find_native
from qpa_hf.measurement.noise.noisy import MAX_DENSITY_QUBITS, noisy_probabilities
from qpa_hf.measurement.noise.snapshot import DEVICES, Snapshot, find_snapshot

__all__ = [
    "DEVICES",
    "MAX_DENSITY_QUBITS",
    "Snapshot",
    "find_native",
    "find_snapshot",
    "noisy_probabilities",
]
