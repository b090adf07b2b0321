"""Parameterized quantum circuits: exact probabilities with gradients, drawings, exports. Knows no measurement."""

from qpa_hf.circuit.ansatz import (
    ANSATZE,
    ENTANGLERS,
    Ansatz,
    angles_shape,
    ansatz_label,
    find_ansatz,
    register_ansatz,
)
from qpa_hf.circuit.drawing import draw
from qpa_hf.circuit.export import Gate, gates, state, to_pennylane, to_qasm, to_qiskit
from qpa_hf.circuit.probabilities import check_memory, memory_bytes, probabilities

__all__ = [
    "ANSATZE",
    "ENTANGLERS",
    "Ansatz",
    "Gate",
    "angles_shape",
    "ansatz_label",
    "check_memory",
    "draw",
    "find_ansatz",
    "gates",
    "memory_bytes",
    "probabilities",
    "register_ansatz",
    "state",
    "to_pennylane",
    "to_qasm",
    "to_qiskit",
]
