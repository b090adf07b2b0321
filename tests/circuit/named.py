"""The simulators that a test on a CPU can name."""

import torch

from qpa_hf.circuit import ANSATZE
from qpa_hf.circuit.simulators import SIMULATORS

CPU = torch.device("cpu")
HERE = [simulator for simulator in SIMULATORS if simulator.is_automatic and simulator.fits(CPU) and simulator.module]


def able(ansatz, n_qubits, n_circuits=1):
    """Return the names of those that can simulate circuits of a pattern, fastest first."""
    return [simulator.name for simulator in HERE if simulator.can(ansatz, n_qubits, n_circuits, CPU)]


CASES = [(name, ansatz) for ansatz in sorted(ANSATZE) for name in able(ANSATZE[ansatz], 2)]
