"""Parameterized quantum circuits: angles in, exact measurement probabilities out. Knows torch, nothing else."""

from qpa_hf.circuit.ansatz import ANSATZE, angles_shape
from qpa_hf.circuit.backends import BACKENDS
from qpa_hf.circuit.probabilities import check_memory, memory_bytes, probabilities

__all__ = ["ANSATZE", "BACKENDS", "angles_shape", "check_memory", "memory_bytes", "probabilities"]
