"""Our noise against Qiskit Aer: on the same channels, and as Aer models the device on a transpiled circuit."""

from importlib.util import find_spec

import pytest
import torch

from qpa_hf.circuit import ANSATZE, angles_shape
from qpa_hf.measurement.device import aer_probabilities
from qpa_hf.measurement.noise import DEVICES, find_snapshot, noisy_probabilities
from qpa_hf.measurement.noise.native import HADAMARD, native_circuit

pytest.importorskip("qiskit_aer", reason="Qiskit Aer is not installed: pip install 'qpa-hf[noise]'")
needs_runtime = pytest.mark.skipif(
    find_spec("qiskit_ibm_runtime") is None,
    reason="qiskit-ibm-runtime is not installed: pip install 'qpa-hf[noise]'",
)


def draw(ansatz, n_qubits, depth, n_circuits=1):
    shape = (n_circuits, *angles_shape(ansatz, depth, n_qubits))
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) * 6 - 3


class SameChannels:
    """The native circuit with every channel put in by hand, made by Aer from the snapshot's numbers."""

    def __init__(self, ansatz, angles, snapshot):
        from qiskit import QuantumCircuit

        self.n = angles.shape[-1]
        self.qubits, self.couplings = snapshot.line_qubits(self.n), snapshot.line_couplings(self.n)
        self.circuit = QuantumCircuit(self.n)
        rows = angles.reshape(-1, self.n).tolist()
        native = native_circuit(ansatz, len(angles), self.n, snapshot)
        for row, runs, idle in zip(rows, native.runs, native.idle, strict=True):
            for qubit, run in enumerate(runs):
                self.run(run, qubit, row[qubit])
            for left in range(self.n - 1):
                self.circuit.cz(left, left + 1)
                self.error([left, left + 1], self.couplings[left].cz_error, self.couplings[left].cz_duration)
                for qubit, time in zip((left, left + 1), idle[left], strict=True):
                    self.circuit.append(self.relaxation(qubit, time).to_instruction(), [qubit])
                if left + 1 < self.n - 1:
                    self.run(HADAMARD, left + 1, 0)
        if self.n > 1:
            self.run(HADAMARD, self.n - 1, 0)

    def relaxation(self, qubit, time):
        from qiskit_aer.noise import thermal_relaxation_error

        return thermal_relaxation_error(self.qubits[qubit].t1, self.qubits[qubit].t2, time)

    def error(self, where, error, time):
        """Append what Aer's device model appends to a gate."""
        from qiskit_aer.noise.device.models import _device_depolarizing_error

        relaxation = self.relaxation(where[0], time)
        for qubit in where[1:]:
            relaxation = relaxation.expand(self.relaxation(qubit, time))
        depolarizing = _device_depolarizing_error(where, error, relaxation)
        whole = relaxation if depolarizing is None else depolarizing.compose(relaxation)
        self.circuit.append(whole.to_instruction(), where)

    def run(self, run, qubit, angle):
        for index, (k, c) in enumerate(run):
            if index > 0:
                self.circuit.sx(qubit)
                self.error([qubit], self.qubits[qubit].sx_error, self.qubits[qubit].sx_duration)
            self.circuit.rz(k * angle + c, qubit)

    def probabilities(self):
        from qiskit_aer import AerSimulator

        self.circuit.save_probabilities(list(range(self.n))[::-1])
        result = AerSimulator(method="density_matrix", max_parallel_threads=1).run(self.circuit).result()
        p = torch.as_tensor(result.data(0)["probabilities"])
        confusion = torch.ones(1, 1, dtype=torch.float64)
        for qubit in self.qubits:
            one, zero = qubit.false_one, qubit.false_zero
            confusion = torch.kron(confusion, torch.tensor([[1 - one, zero], [one, 1 - zero]], dtype=torch.float64))
        return confusion @ p


@pytest.mark.parametrize(
    ("ansatz", "n_qubits", "device"),
    [(ansatz, n_qubits, device) for ansatz in ANSATZE for n_qubits, device in ((1, "fez"), (3, "fez"), (5, "torino"))],
)
def test_density_matrix_equals_aers_on_the_same_channels(ansatz, n_qubits, device):
    angles = draw(ansatz, n_qubits, depth=3)[0]
    expected = SameChannels(ansatz, angles, find_snapshot(device)).probabilities()
    assert (noisy_probabilities(angles, ansatz, device) - expected).abs().max() <= 1e-6


@needs_runtime
@pytest.mark.parametrize(("n_qubits", "depth"), [(2, 2), (5, 8)])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_total_variation_from_aer_with_the_device_snapshot(ansatz, device, n_qubits, depth):
    angles = draw(ansatz, n_qubits, depth)
    gap = noisy_probabilities(angles, ansatz, device) - aer_probabilities(angles, ansatz, device)
    assert gap.abs().sum(-1).max() / 2 <= 0.03


@needs_runtime
@pytest.mark.parametrize("device", DEVICES)
def test_snapshot_has_the_numbers_of_the_fake_device(device):
    from qpa_hf.measurement.device.aer import fake_backend

    snapshot, backend = find_snapshot(device), fake_backend(device)
    found = {physical: backend.qubit_properties(physical).t1 for physical in snapshot.qubits}
    assert found == {physical: qubit.t1 for physical, qubit in snapshot.qubits.items()}


@needs_runtime
def test_aer_keeps_the_shape_of_a_batch():
    p = aer_probabilities(draw("rx_rz_cnot", 2, 1, 6).view(2, 3, 1, 2, 2), "rx_rz_cnot", "fez")
    assert p.shape == (2, 3, 4)


@needs_runtime
def test_aer_refuses_an_unknown_device():
    with pytest.raises(ValueError, match="`device`='osaka' is not a known device. Choose one of 'torino', 'fez'"):
        aer_probabilities(torch.zeros(1, 2), device="osaka")
