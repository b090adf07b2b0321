"""Circuits taken to Qiskit, PennyLane and OpenQASM: the same amplitudes there, for every ansatz, in the said order."""

import sys

import pytest
import torch

from qpa_hf.circuit import (
    ANSATZE,
    ENTANGLERS,
    Ansatz,
    angles_shape,
    draw,
    gates,
    probabilities,
    register_ansatz,
    state,
    to_pennylane,
    to_qasm,
    to_qiskit,
)

OWN = {f"own_{entangler}": Ansatz(("z", "x", "y"), entangler) for entangler in ENTANGLERS}
NAMES = [*ANSATZE, *OWN]
EXPORTS = {"state": state, "to_qiskit": to_qiskit, "to_pennylane": to_pennylane, "to_qasm": to_qasm, "draw": draw}


@pytest.fixture(params=NAMES)
def case(request, registry):
    """An ansatz, published or registered, and angles of one circuit of it."""
    for name, ansatz in OWN.items():
        register_ansatz(name, ansatz)
    generator = torch.Generator().manual_seed(NAMES.index(request.param))
    shape = angles_shape(request.param, 2, 3)
    return request.param, torch.randn(shape, dtype=torch.float64, generator=generator) * 2


def same(found, expected):
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=0, atol=1e-12)


def test_state_has_the_probabilities_and_their_gradient(case):
    name, angles = case
    angles.requires_grad_()
    weights = torch.arange(8.0, dtype=torch.float64)
    both = [state(angles, name).abs().square(), probabilities(angles, name)]
    same(*both)
    same(*(torch.autograd.grad(p, angles, weights)[0] for p in both))


def test_state_takes_many_circuits_at_once(case):
    name, angles = case
    many = torch.stack([angles, angles + 1])
    same(state(many, name), torch.stack([state(one, name) for one in many]))


def test_qiskit_has_the_same_amplitudes_with_its_bits_reversed(case):
    quantum_info = pytest.importorskip("qiskit.quantum_info")
    name, angles = case
    circuit = to_qiskit(angles, name)
    same(quantum_info.Statevector(circuit.reverse_bits()).data, state(angles, name))
    as_tensor = state(angles, name).view(2, 2, 2).permute(2, 1, 0).reshape(-1)
    same(quantum_info.Statevector(circuit).data, as_tensor)


def test_pennylane_has_the_same_amplitudes_and_gradients(case):
    qml = pytest.importorskip("pennylane")
    name, angles = case
    turn = to_pennylane(angles, name)

    @qml.qnode(qml.device("default.qubit", wires=3))
    def amplitudes():
        turn()
        return qml.state()

    @qml.qnode(qml.device("default.qubit", wires=3))
    def excited(angles):
        turn(angles)
        return qml.probs(range(3))

    same(amplitudes(), state(angles, name))
    angles.requires_grad_()
    both = [torch.autograd.grad(how(angles)[5], angles)[0] for how in (excited, lambda a: probabilities(a, name))]
    same(*both)


def test_qasm_is_read_by_qiskit_and_pennylane(case):
    quantum_info = pytest.importorskip("qiskit.quantum_info")
    qasm3 = pytest.importorskip("qiskit.qasm3")
    qml = pytest.importorskip("pennylane")
    pytest.importorskip("qiskit_qasm3_import")
    name, angles = case
    program = to_qasm(angles, name)
    same(quantum_info.Statevector(qasm3.loads(program).reverse_bits()).data, state(angles, name))

    @qml.qnode(qml.device("default.qubit", wires=[f"q[{qubit}]" for qubit in range(3)]))
    def amplitudes():
        qml.from_qasm3(program.replace('include "stdgates.inc";', ""))()  # it includes nothing
        return qml.state()

    same(amplitudes(), state(angles, name))


def test_gates_count_the_angles_in_their_order():
    turned = [gate.angle for gate in gates("rx_rz_cnot", 3, 4) if gate.angle is not None]
    assert turned == list(range(3 * 2 * 4))


DRAWINGS = {
    ("ry_cnot", 1, 2): "q0: ─RY(θ0)─╭●─\nq1: ─RY(θ1)─╰X─",
    ("ry_cnot", 2, 1): "q0: ─RY(θ0)─RY(θ1)─",
    ("own_cz_ring", 1, 3): (
        "q0: ─RZ(θ0)─╭●────╭●─RX(θ3)─╭●────╭●─RY(θ6)─╭●────╭●─\n"
        "q1: ─RZ(θ1)─╰●─╭●─│──RX(θ4)─╰●─╭●─│──RY(θ7)─╰●─╭●─│──\n"
        "q2: ─RZ(θ2)────╰●─╰●─RX(θ5)────╰●─╰●─RY(θ8)────╰●─╰●─"
    ),
    ("own_cnot_ring", 1, 3): (
        "q0: ─RZ(θ0)─╭●────╭X─RX(θ3)─╭●────╭X─RY(θ6)─╭●────╭X─\n"
        "q1: ─RZ(θ1)─╰X─╭●─│──RX(θ4)─╰X─╭●─│──RY(θ7)─╰X─╭●─│──\n"
        "q2: ─RZ(θ2)────╰X─╰●─RX(θ5)────╰X─╰●─RY(θ8)────╰X─╰●─"
    ),
}


@pytest.mark.parametrize("circuit", DRAWINGS, ids=str)
def test_drawing(circuit, registry):
    for name, ansatz in OWN.items():
        register_ansatz(name, ansatz)
    name, depth, n_qubits = circuit
    assert draw((depth, n_qubits), name) == DRAWINGS[circuit]


def test_drawing_shows_given_angles():
    assert draw(torch.tensor([[0.5, -0.125]])) == "q0: ─RY(0.50)──╭●─\nq1: ─RY(-0.12)─╰X─"


def test_drawing_goes_on_below_within_its_width():
    whole = draw((8, 12), width=10_000).splitlines()
    blocks = [block.splitlines() for block in draw((8, 12), width=60).split("\n\n")]
    assert max(len(line) for block in blocks for line in block) <= 60
    start = len("q10: ─")
    assert [name[:start] + "".join(rest[start:] for rest in rows) for name, *rows in _with_names(blocks)] == whole


def _with_names(blocks):
    return [(rows[0], *rows) for rows in zip(*blocks, strict=True)]


BAD = {
    "two circuits": (
        torch.ones(2, 3, 4),
        r"of shape \(2, 3, 4\) are those of 2 circuits. Give one circuit's, such as",
    ),
    "NaN": (torch.full((2, 3), torch.nan), "`angles` has NaN or infinite values"),
    "shape": (torch.ones(3), r"must have shape \(..., depth, n_qubits\)"),
}


@pytest.mark.parametrize("export", ["to_qiskit", "to_pennylane", "to_qasm", "draw"])
@pytest.mark.parametrize("bad", BAD)
def test_bad_angles_are_named(bad, export):
    angles, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        EXPORTS[export](angles)


@pytest.mark.parametrize("size", [(0, 3), (2, 0), (1.5, 3)])
def test_a_drawing_needs_whole_numbers(size):
    with pytest.raises((ValueError, TypeError), match=r"`(depth|n_qubits)`="):
        draw(size)


@pytest.mark.parametrize("export", EXPORTS)
def test_an_unknown_ansatz_is_named(export):
    with pytest.raises(ValueError, match="`ansatz`='none' is not known. Choose one of"):
        EXPORTS[export](torch.ones(2, 3), "none")


@pytest.mark.parametrize("library", ["qiskit", "pennylane"])
def test_a_missing_library_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"`to_{library}` needs {library}. Install it with `pip install "):
        EXPORTS[f"to_{library}"](torch.ones(2, 3))
