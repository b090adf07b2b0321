"""Every pattern against Qiskit, PennyLane and TorchQuantum's sequence of gates."""

import itertools
import sys
from types import SimpleNamespace

import pytest
import torch

from qpa_hf.circuit import ENTANGLERS, Ansatz, probabilities, register_ansatz
from qpa_hf.circuit.simulators import reference
from qpa_hf.measurement.device.aer import qiskit_circuit

PATTERNS = [axes for n in (1, 2, 3) for axes in itertools.product("xyz", repeat=n)]
PAIRS = {
    "chain": {1: [], 2: [(0, 1)], 4: [(0, 1), (1, 2), (2, 3)]},
    "ring": {1: [], 2: [(0, 1)], 4: [(0, 1), (1, 2), (2, 3), (3, 0)]},
    "all_pairs": {1: [], 2: [(0, 1)], 4: [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]},
}


def draw(ansatz, n_qubits=4, depth=2):
    shape = (depth, len(ansatz.rotations), n_qubits)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(n_qubits)) * 2


def plain(angles, ansatz):
    return reference.forward(angles[None], ansatz)[0][0]


@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_every_pattern_equals_qiskit_s_statevector(entangler, registry):
    pytest.importorskip("qiskit")
    quantum_info = pytest.importorskip("qiskit.quantum_info")
    for number, axes in enumerate(PATTERNS):
        ansatz = Ansatz(axes, entangler)
        register_ansatz(f"own_{number}", ansatz)
        angles = draw(ansatz)
        circuit = qiskit_circuit(angles.squeeze(1), f"own_{number}").remove_final_measurements(inplace=False)
        expected = quantum_info.Statevector(circuit.reverse_bits()).probabilities()
        torch.testing.assert_close(plain(angles, ansatz), torch.tensor(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("entangler", ENTANGLERS)
@pytest.mark.parametrize("n_qubits", [1, 2, 4])
def test_every_entangler_is_what_it_says_in_pennylane(entangler, n_qubits):
    qml = pytest.importorskip("pennylane")
    gate, _, kind = entangler.partition("_")
    ansatz = Ansatz(("z", "y", "x"), entangler)
    angles = draw(ansatz, n_qubits)

    @qml.qnode(qml.device("default.qubit", wires=n_qubits))
    def circuit():
        for layer in angles:
            for axis, row in zip("ZYX", layer, strict=True):
                for qubit, angle in enumerate(row.tolist()):
                    getattr(qml, f"R{axis}")(angle, qubit)
                for pair in PAIRS[kind][n_qubits]:
                    getattr(qml, gate.upper())(pair)
        return qml.probs(range(n_qubits))

    torch.testing.assert_close(plain(angles, ansatz), torch.tensor(circuit()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_torchquantum_is_given_the_gates_in_time_order(entangler, registry, monkeypatch):
    ansatz, applied = Ansatz(("z", "x", "z"), entangler), []

    def gate(name):
        return lambda device, wires, params=None: applied.append((name, wires))

    names = ("rx", "ry", "rz", "cnot", "cz")
    device = SimpleNamespace(get_states_1d=lambda: torch.ones(1, 8))
    fake = SimpleNamespace(
        functional=SimpleNamespace(**{name: gate(name) for name in names}), QuantumDevice=lambda **_: device
    )
    monkeypatch.setitem(sys.modules, "torchquantum", fake)
    register_ansatz("own", ansatz)
    probabilities(torch.ones(1, 3, 3), "own", simulator="torchquantum")
    entangling = [(name, [control, target]) for name, control, target in ansatz.entangling_gates(3)]
    layers = [[(f"r{axis}", qubit) for qubit in range(3)] + entangling for axis in ansatz.rotations]
    assert applied == list(itertools.chain(*layers))
