"""One parameterized circuit in a device's gates for all angles: it is transpiled once, and a job binds its angles."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qpa_hf.measurement.device.aer import transpile_circuits
from qpa_hf.measurement.noise.native import HADAMARD, Run, native_runs

if TYPE_CHECKING:
    from jaxtyping import Int


def native_qiskit_circuit(ansatz: str, depth: int, n_qubits: int) -> Any:
    """Return an ansatz as a `QuantumCircuit` of CZ, sqrt(X) and R_Z that measures every qubit.

    Its parameters stand in the order of the angles, flattened. A transpiler cannot merge a gate whose angle it does
    not know with its neighbours, so it would leave twice as many sqrt(X) as our runs have.
    """
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector

    circuit = QuantumCircuit(n_qubits)
    runs = native_runs(ansatz, depth, n_qubits)
    angles = ParameterVector("angle", len(runs) * n_qubits)

    def append(run: Run, qubit: int, angle: Any) -> None:
        for index, (k, c) in enumerate(run):
            if index > 0:
                circuit.sx(qubit)
            circuit.rz(k * angle + c if k else c, qubit)

    for slot, row in enumerate(runs):
        for qubit, run in enumerate(row):
            append(run, qubit, angles[slot * n_qubits + qubit])
        for left in range(n_qubits - 1):
            circuit.cz(left, left + 1)
            if left + 1 < n_qubits - 1:
                append(HADAMARD, left + 1, None)
    if n_qubits > 1:
        append(HADAMARD, n_qubits - 1, None)
    circuit.measure_all()
    return circuit


@lru_cache(maxsize=16)
def device_circuit(ansatz: str, depth: int, n_qubits: int, backend: Any, line: tuple[int, ...]) -> Any:
    """Return the circuit as the device runs it: on its qubits, in its gates, scheduled."""
    return transpile_circuits([native_qiskit_circuit(ansatz, depth, n_qubits)], backend, line)[0]


def count_bits(bits: Any) -> Int[Tensor, "n_circuits n_states"]:
    """Return how often each basis state was measured.

    Args:
        bits: the measured bits, a `BitArray` of shape (C,).

    Returns:
        The counts, shape (C, 2**n_qubits), int64; qubit 0 is the most significant bit, Qiskit's order reversed.
    """
    n_circuits = bits.shape[0]
    n_states = 2**bits.num_bits
    # Qiskit's first bit is the last of the unpacked ones, and the least significant.
    unpacked = np.unpackbits(bits.array, axis=-1)[..., -bits.num_bits :]  # (C, shots, N)
    states = unpacked.astype(np.int64) @ (2 ** np.arange(bits.num_bits))
    # Every circuit's states get numbers of their own, so that one histogram counts all circuits.
    states += np.arange(n_circuits)[:, None] * n_states
    counts = np.bincount(states.ravel(), minlength=n_circuits * n_states)
    return torch.from_numpy(counts).view(n_circuits, n_states)
