"""Parameterized quantum circuits: angles in, probabilities or measured shares out. Knows no PEFT, no transformers."""

from qpa_hf.circuit.ansatz import ANSATZE, angles_shape
from qpa_hf.circuit.backends import BACKENDS
from qpa_hf.circuit.estimators import ESTIMATORS, n_measured
from qpa_hf.circuit.measured import DeviceSettings, Measurement, measured, n_simulated
from qpa_hf.circuit.measurement import check_shots, n_shots
from qpa_hf.circuit.probabilities import check_memory, memory_bytes, probabilities
from qpa_hf.circuit.randomness import seeded

__all__ = [
    "ANSATZE",
    "BACKENDS",
    "ESTIMATORS",
    "DeviceSettings",
    "Measurement",
    "angles_shape",
    "check_memory",
    "check_shots",
    "measured",
    "memory_bytes",
    "n_measured",
    "n_shots",
    "n_simulated",
    "probabilities",
    "seeded",
]
