"""Circuits as a noisy device would run them: probabilities with gradients, and Qiskit Aer's for comparison."""

from qpa_hf.circuit.noise.aer import aer_probabilities
from qpa_hf.circuit.noise.noisy import MAX_DENSITY_QUBITS, noisy_probabilities
from qpa_hf.circuit.noise.snapshot import DEVICES, Snapshot, find_snapshot

__all__ = ["DEVICES", "MAX_DENSITY_QUBITS", "Snapshot", "aer_probabilities", "find_snapshot", "noisy_probabilities"]
