"""The simulators that are compared: each turns angles and a cotangent of the probabilities into a gradient.

They all do the same work: the gradient of sum_i w_i p_i with respect to every angle, for given w. Where a simulator
knows no cotangent of probabilities, the sum is the expectation of the diagonal observable with w on its diagonal.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Run
from qpa_hf.circuit import ANSATZE, probabilities, simulators


def _gates(angles: Any, ansatz: str) -> Iterator[tuple[str, int, Any]]:
    """Yield the circuit gate by gate: an axis, its qubit and its angle, or "cnot", its control and None."""
    n_qubits, axes = angles.shape[-1], ANSATZE[ansatz].rotations
    flat = angles.reshape(-1)
    # Indexing a tensor once for each gate would cost the others one backward operation more for each.
    values = iter(flat.unbind() if isinstance(flat, Tensor) else flat)
    for layer in range(len(flat) // n_qubits):
        yield from ((axes[layer % len(axes)], qubit, next(values)) for qubit in range(n_qubits))
        yield from (("cnot", qubit, None) for qubit in range(n_qubits - 1))


def _named(simulator: str | None, angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    leaf = angles.clone().requires_grad_()
    return lambda: torch.autograd.grad(probabilities(leaf, ansatz, simulator=simulator), leaf, weights)[0]


def _first_able(names: Sequence[str], angles: Tensor, ansatz: str) -> str:
    """Return the first of our simulators that can, among some of them."""
    n_qubits, pattern = angles.shape[-1], ANSATZE[ansatz]
    return next(
        one.name
        for name in names
        for one in simulators.SIMULATORS
        if one.name == name and one.can(pattern, n_qubits, 1, angles.device)
    )


def ours(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    return _named(None, angles, weights, ansatz)


def ours_forward(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    return lambda: probabilities(angles, ansatz)


def in_torch(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """Ours as it is where Numba is not installed."""
    in_torch_alone = [one.name for one in simulators.SIMULATORS if one.compiler is None and one.is_automatic]
    return _named(_first_able(in_torch_alone, angles, ansatz), angles, weights, ansatz)


def general(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """Our path that takes all of these ansätze, without the forms made for one; complex where the ansatz is."""
    return _named(_first_able(("numba_gates", "torch_grouped"), angles, ansatz), angles, weights, ansatz)


def torchquantum(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """TorchQuantum gate by gate, as `QPAConfig(backend="torchquantum")` runs it, differentiated by torch."""
    return _named("torchquantum", angles, weights, ansatz)


def _apply_pennylane(angles: Any, ansatz: str) -> None:
    import pennylane as qml

    gates = {"x": qml.RX, "y": qml.RY, "z": qml.RZ}
    for gate, qubit, angle in _gates(angles, ansatz):
        if gate == "cnot":
            qml.CNOT([qubit, qubit + 1])
        else:
            gates[gate](angle, wires=qubit)


def _diagonal(weights: Tensor) -> Any:
    """The cheapest observable that lightning's adjoint takes for it: a dense one would have 4**N entries."""
    import pennylane as qml
    from scipy.sparse import diags

    return qml.SparseHamiltonian(
        diags(weights.double().numpy()).tocsr(), wires=range(weights.numel().bit_length() - 1)
    )


def default_qubit(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """PennyLane's simulator in torch, differentiated by torch; it computes in complex128 at any precision asked."""
    import pennylane as qml

    leaf, n_qubits = angles.clone().requires_grad_(), angles.shape[-1]

    @qml.qnode(qml.device("default.qubit", wires=n_qubits), interface="torch", diff_method="backprop")
    def circuit(x: Tensor) -> Any:
        _apply_pennylane(x, ansatz)
        return qml.probs(wires=range(n_qubits))

    return lambda: torch.autograd.grad(circuit(leaf), leaf, weights.double())[0]


def lightning_qnode(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """Lightning's adjoint method as a user trains with it: a QNode that torch differentiates."""
    import pennylane as qml

    leaf, n_qubits = angles.clone().requires_grad_(), angles.shape[-1]
    observable = _diagonal(weights)
    device = qml.device("lightning.qubit", wires=n_qubits, c_dtype=np.complex64)

    @qml.qnode(device, interface="torch", diff_method="adjoint")
    def circuit(x: Tensor) -> Any:
        _apply_pennylane(x, ansatz)
        return qml.expval(observable)

    return lambda: torch.autograd.grad(circuit(leaf), leaf)[0]


def _lightning(angles: Tensor, weights: Tensor, ansatz: str) -> tuple[Any, Any, Any]:
    """Return lightning's device, its configuration and a tape that is already preprocessed for it."""
    import pennylane as qml
    from pennylane.devices import ExecutionConfig

    with qml.tape.QuantumTape() as tape:
        _apply_pennylane(angles.double().numpy(), ansatz)
        qml.expval(_diagonal(weights))
    tape.trainable_params = list(range(angles.numel()))
    device = qml.device("lightning.qubit", wires=angles.shape[-1], c_dtype=np.complex64)
    config = device.setup_execution_config(ExecutionConfig(gradient_method="adjoint"), tape)
    (prepared,), _ = device.preprocess_transforms(config)((tape,))
    return device, config, prepared


def lightning_device(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """The raw device, as favourable as it gets: the tape is made once, although training has new angles every step."""
    device, config, tape = _lightning(angles, weights, ansatz)
    return lambda: np.asarray(device.compute_derivatives((tape,), config)[0])


def lightning_sweep(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """Only the compiled backward sweep, all its inputs made once: no forward pass, no Python. A lower bound."""
    device, _, tape = _lightning(angles, weights, ansatz)
    state = device.LightningStateVector(angles.shape[-1], dtype=np.complex64)
    state.get_final_state(tape)
    adjoint = device.LightningAdjointJacobian(state)
    inputs = adjoint._process_jacobian_tape(tape)
    names = ("state_vector", "obs_serialized", "ops_serialized", "tp_shift")
    return lambda: adjoint._jacobian_lightning(*(inputs[name] for name in names))


def _aer(angles: Any, ansatz: str) -> tuple[Any, Any]:
    """Return Aer's simulator and the circuit; its qubit 0 is the least significant bit."""
    from qiskit import QuantumCircuit
    from qiskit_aer import AerSimulator

    n_qubits = angles.shape[-1]
    circuit = QuantumCircuit(n_qubits)
    gates = {"x": circuit.rx, "y": circuit.ry, "z": circuit.rz}
    for gate, qubit, angle in _gates(angles, ansatz):
        if gate == "cnot":
            circuit.cx(n_qubits - 1 - qubit, n_qubits - 2 - qubit)
        else:
            gates[gate](angle, n_qubits - 1 - qubit)
    circuit.save_probabilities()
    return AerSimulator(method="statevector", precision="single", max_parallel_threads=1), circuit


def aer_forward(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """Aer has no gradient: this is its forward pass alone, of a circuit whose angles are bound once."""
    simulator, circuit = _aer(angles.double().numpy(), ansatz)
    return lambda: simulator.run(circuit).result().data(0)["probabilities"]


def aer_shift(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """The parameter-shift rule over Aer: two circuits for each angle, all in one job."""
    from qiskit.circuit import Parameter

    n_angles, w = angles.numel(), weights.double().numpy()
    names = [Parameter(str(i)) for i in range(n_angles)]
    simulator, circuit = _aer(np.array(names, dtype=object).reshape(angles.shape), ansatz)
    turns = np.concatenate((np.eye(n_angles), -np.eye(n_angles))) * (math.pi / 2)
    shifted = angles.double().numpy().reshape(-1) + turns  # (2 * n_angles, n_angles)
    binds = [{name: shifted[:, i].tolist() for i, name in enumerate(names)}]

    def run() -> Any:
        result = simulator.run(circuit, parameter_binds=binds, runtime_parameter_bind_enable=True).result()
        values = np.array([result.data(i)["probabilities"] @ w for i in range(2 * n_angles)])
        return (values[:n_angles] - values[n_angles:]) / 2

    return run


class Simulator(NamedTuple):
    """One arm of the comparison.

    Args:
        module: what must be installed.
        make: takes angles, weights and the ansatz's name; returns what is timed.
        max_qubits: beyond, a call takes minutes or more memory than most machines have.
        has_gradient: whether it returns the gradient, or else the probabilities.
        is_torch: whether it computes in torch, on any device.
    """

    module: str
    make: Callable[[Tensor, Tensor, str], Run]
    max_qubits: int = 20
    has_gradient: bool = True
    is_torch: bool = False

    def missing(self) -> str | None:
        """Return why it cannot be imported, or None if it can."""
        try:
            importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            return "not installed" if self.module.startswith(str(error.name)) else f"needs {error.name}"
        except Exception as error:  # versions that do not fit raise anything; its message may name folders
            return f"does not import ({type(error).__name__})"
        return None


OURS, FORWARD, GENERAL, TORCHQUANTUM = "ours", "ours, forward", "ours, general path", "TorchQuantum"
LIGHTNING = "PennyLane lightning, raw device"
SIMULATORS = {
    OURS: Simulator("torch", ours, 32, is_torch=True),
    "ours, without Numba": Simulator("numba", in_torch, 24, is_torch=True),
    GENERAL: Simulator("torch", general, 24, is_torch=True),
    TORCHQUANTUM: Simulator("torchquantum", torchquantum, is_torch=True),
    "PennyLane default.qubit": Simulator("pennylane", default_qubit, 18, is_torch=True),
    "PennyLane lightning, QNode": Simulator("pennylane_lightning.lightning_qubit", lightning_qnode),
    LIGHTNING: Simulator("pennylane_lightning.lightning_qubit", lightning_device),
    "PennyLane lightning, sweep alone": Simulator("pennylane_lightning.lightning_qubit", lightning_sweep),
    "Qiskit Aer, parameter shift": Simulator("qiskit_aer", aer_shift, 8),
    FORWARD: Simulator("torch", ours_forward, 32, has_gradient=False, is_torch=True),
    "Qiskit Aer, forward": Simulator("qiskit_aer", aer_forward, has_gradient=False),
}
