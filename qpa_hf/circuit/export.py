"""A circuit taken out of here: its amplitudes, and its gates in Qiskit, in PennyLane and in OpenQASM.

All four take the angles of one circuit as `probabilities` does. Qubit q is Qiskit's qubit q, PennyLane's wire q and
OpenQASM's q[q]. What differs is how a basis state is numbered: here and in PennyLane qubit 0 is the most significant
bit, in Qiskit the least. `circuit.reverse_bits()` gives a Qiskit circuit whose states are numbered as here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from qpa_hf.circuit.ansatz import find_ansatz
from qpa_hf.circuit.probabilities import check_memory, flat_angles
from qpa_hf.circuit.simulators import reference

if TYPE_CHECKING:
    from jaxtyping import Complex, Float
    from qiskit import QuantumCircuit

QASM_NAMES = {"cnot": "cx"}  # Qiskit calls it so, too


class Gate(NamedTuple):
    """One gate of a circuit.

    Args:
        name: "rx", "ry", "rz", "cnot" or "cz".
        qubits: the qubit that is turned, or the control and the target.
        angle: which of the circuit's angles turns it, counted through (layers, rotations, qubits); None without one.

    Example:
        >>> next(gates("ry_cnot", 1, 3))
        Gate(name='ry', qubits=(0,), angle=0)
    """

    name: str
    qubits: tuple[int, ...]
    angle: int | None = None


def gates(ansatz: str, depth: int, n_qubits: int) -> Iterator[Gate]:
    """Return the gates of a circuit in time order.

    Args:
        ansatz: the gate pattern, a key of `ANSATZE`.
        depth: the number of layers.
        n_qubits: the number of qubits.

    Raises:
        ValueError: for an unknown ansatz.

    Example:
        >>> [gate.name for gate in gates("ry_cnot", 1, 3)]
        ['ry', 'ry', 'ry', 'cnot', 'cnot']
    """
    pattern = find_ansatz(ansatz)
    for slot in range(depth * len(pattern.rotations)):
        axis = pattern.rotations[slot % len(pattern.rotations)]
        for qubit in range(n_qubits):
            yield Gate(f"r{axis}", (qubit,), slot * n_qubits + qubit)
        for name, control, target in pattern.entangling_gates(n_qubits):
            yield Gate(name, (control, target))


def one_circuit(angles: Float[Tensor, "*layers n_qubits"], ansatz: str) -> tuple[list[Gate], list[float]]:
    """Return the gates of one circuit in time order, and its angles in radians, flat.

    Raises:
        TypeError, ValueError: as `probabilities` does, and for the angles of several circuits.
    """
    flat, batch = flat_angles(angles, ansatz)
    if batch:
        raise ValueError(
            f"`angles` of shape {tuple(angles.shape)} are those of {len(flat)} circuits. Give one circuit's, such as "
            f"`angles{[0] * len(batch)}`."
        )
    _, depth, _, n_qubits = flat.shape
    return list(gates(ansatz, depth, n_qubits)), flat.detach().flatten().tolist()


def state(angles: Float[Tensor, "*batch n_qubits"], ansatz: str = "ry_cnot") -> Complex[Tensor, "*batch 2**n_qubits"]:
    """Return the amplitudes of circuits that start in |0...0>, from the simulator that applies gate by gate.

    They are differentiable, and their squared magnitudes are `probabilities`.

    Args:
        angles: the rotation angles in radians, float32 or float64, shape (..., depth, n_qubits), or (..., depth,
            n_rotations, n_qubits) for an ansatz of several rotations; leading dimensions are independent circuits.
        ansatz: the gate pattern, a key of `ANSATZE`.

    Returns:
        Complex amplitudes, shape (..., 2**n_qubits). Qubit 0 is the most significant bit of the index (PennyLane's
        order; Qiskit's is reversed).

    Raises:
        TypeError: if `angles` is not a float32 or float64 tensor.
        ValueError: for an unknown ansatz, a wrong shape, or angles that are not finite.
        MemoryError: if the states do not fit in memory.

    Example:
        >>> import torch
        >>> state(torch.tensor([[torch.pi / 2, 0.0]])).real.round(decimals=3)  # (|00> + |11>) / sqrt(2)
        tensor([0.7070, 0.0000, 0.0000, 0.7070])
    """
    flat, batch = flat_angles(angles, ansatz)
    n_circuits, depth, _, n_qubits = flat.shape
    check_memory(n_qubits, depth, n_circuits, ansatz, str(flat.device), flat.dtype, "reference")
    _, amplitudes = reference.forward(flat, find_ansatz(ansatz))
    return amplitudes.reshape(*batch, -1)


def to_qiskit(angles: Float[Tensor, "*layers n_qubits"], ansatz: str = "ry_cnot") -> QuantumCircuit:
    """Return one circuit as Qiskit's, without measurements (`circuit.measure_all()` adds them).

    Qubit q is Qiskit's qubit q. Qiskit numbers basis states from the other end: `circuit.reverse_bits()` has the
    states in the order of `probabilities` and `state`.

    Args:
        angles: the circuit's angles in radians, shape (depth, n_qubits), or (depth, n_rotations, n_qubits) for an
            ansatz of several rotations.
        ansatz: the gate pattern, a key of `ANSATZE`.

    Raises:
        TypeError, ValueError: as `probabilities` does, and for the angles of several circuits.
        ImportError: if qiskit is not installed.

    Example:
        >>> import torch
        >>> circuit = to_qiskit(torch.ones(2, 3))
        >>> dict(circuit.count_ops())
        {'ry': 6, 'cx': 4}
    """
    found, values = one_circuit(angles, ansatz)
    try:
        from qiskit import QuantumCircuit
    except ImportError as error:
        raise ImportError("`to_qiskit` needs qiskit. Install it with `pip install 'qpa-hf[noise]'`.") from error
    circuit = QuantumCircuit(angles.shape[-1])
    for gate in found:
        turn = () if gate.angle is None else (values[gate.angle],)
        getattr(circuit, QASM_NAMES.get(gate.name, gate.name))(*turn, *gate.qubits)
    return circuit


def to_pennylane(angles: Float[Tensor, "*layers n_qubits"], ansatz: str = "ry_cnot") -> Callable[..., None]:
    """Return one circuit as a quantum function, which a `qml.QNode` calls for its gates.

    Qubit q is wire q, and PennyLane numbers basis states as we do. The function takes other angles of the same shape,
    in any form that PennyLane differentiates (a tensor, or an array of `pennylane.numpy`).

    Args:
        angles: the circuit's angles in radians, shape (depth, n_qubits), or (depth, n_rotations, n_qubits) for an
            ansatz of several rotations.
        ansatz: the gate pattern, a key of `ANSATZE`.

    Raises:
        TypeError, ValueError: as `probabilities` does, and for the angles of several circuits.
        ImportError: if pennylane is not installed.

    Example:
        >>> import pennylane as qml
        >>> import torch
        >>> turn = to_pennylane(torch.tensor([[torch.pi, 0.0]], dtype=torch.float64))
        >>> @qml.qnode(qml.device("default.qubit", wires=2))
        ... def circuit():
        ...     turn()
        ...     return qml.probs([0, 1])
        >>> [round(float(p), 3) for p in circuit()]
        [0.0, 0.0, 0.0, 1.0]
    """
    found, _ = one_circuit(angles, ansatz)
    try:
        import pennylane
    except ImportError as error:
        raise ImportError("`to_pennylane` needs pennylane. Install it with `pip install pennylane`.") from error
    given = angles.detach()

    def circuit(angles: Any = given) -> None:
        flat = angles.reshape(-1)
        for gate in found:
            turn = () if gate.angle is None else (flat[gate.angle],)
            getattr(pennylane, gate.name.upper())(*turn, wires=gate.qubits)

    return circuit


def to_qasm(angles: Float[Tensor, "*layers n_qubits"], ansatz: str = "ry_cnot") -> str:
    """Return one circuit as a program in OpenQASM 3, without measurements.

    Qubit q is `q[q]`. Angles are written with all of their digits. `qiskit.qasm3.loads` reads it; PennyLane's
    `from_qasm3` takes no line that includes a file, and knows the gates without it.

    Args:
        angles: the circuit's angles in radians, shape (depth, n_qubits), or (depth, n_rotations, n_qubits) for an
            ansatz of several rotations.
        ansatz: the gate pattern, a key of `ANSATZE`.

    Raises:
        TypeError, ValueError: as `probabilities` does, and for the angles of several circuits.

    Example:
        >>> import torch
        >>> print(to_qasm(torch.tensor([[0.5, 0.25]])))
        OPENQASM 3.0;
        include "stdgates.inc";
        qubit[2] q;
        ry(0.5) q[0];
        ry(0.25) q[1];
        cx q[0], q[1];
    """
    found, values = one_circuit(angles, ansatz)
    lines = ["OPENQASM 3.0;", 'include "stdgates.inc";', f"qubit[{angles.shape[-1]}] q;"]
    for gate in found:
        turn = "" if gate.angle is None else f"({values[gate.angle]!r})"
        qubits = ", ".join(f"q[{qubit}]" for qubit in gate.qubits)
        lines.append(f"{QASM_NAMES.get(gate.name, gate.name)}{turn} {qubits};")
    return "\n".join(lines)
