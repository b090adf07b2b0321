"""Parameterized quantum circuits: angles in, exact probabilities out, with gradients. Knows no measurement."""

from qpa_hf.circuit.ansatz import (
    ANSATZE,
    ENTANGLERS,
    Ansatz,
    angles_shape,
    ansatz_label,
    find_ansatz,
    register_ansatz,
)
from qpa_hf.circuit.probabilities import check_memory, memory_bytes, probabilities

__all__ = [
    "ANSATZE",
    "ENTANGLERS",
    "Ansatz",
    "angles_shape",
    "ansatz_label",
    "check_memory",
    "find_ansatz",
    "memory_bytes",
    "probabilities",
    "register_ansatz",
]
