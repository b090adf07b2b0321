"""The simulation against independent ones, closed forms and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import dense
from named import CASES, HERE, able
from packaging.version import Version

from benchmarks.measure import n_operations
from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.circuit.simulators import torch_grouped


@pytest.mark.parametrize(("simulator", "ansatz"), CASES)
@given(
    n_qubits=st.integers(1, 7),
    depth=st.integers(1, 4),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=12)
def test_probabilities_equal_dense_matrices(simulator, ansatz, n_qubits, depth, batch, seed):
    shape = (batch, *angles_shape(ansatz, depth, n_qubits))
    angles = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
    expected = torch.stack([dense(circuit, ANSATZE[ansatz]) for circuit in angles])
    torch.testing.assert_close(probabilities(angles, ansatz, simulator=simulator), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("simulator", "ansatz"), CASES)
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5])
def test_gradient_equals_finite_differences(simulator, ansatz, n_qubits):
    angles = torch.randn(2, *angles_shape(ansatz, 2, n_qubits), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: probabilities(x, ansatz, simulator=simulator), (angles,))


MANY = [(name, ansatz) for ansatz in sorted(ANSATZE) for name in able(ANSATZE[ansatz], 14, 3)]


@pytest.mark.parametrize(("simulator", "ansatz"), MANY)
def test_gradient_of_many_qubits_equals_a_difference_quotient(simulator, ansatz):
    angles = torch.randn(angles_shape(ansatz, 2, 14), dtype=torch.float64, requires_grad=True)
    weights, step = torch.randn(2**14, dtype=torch.float64), torch.zeros_like(angles)
    step.view(-1)[9] = 1e-6

    def loss(x):
        return (probabilities(x, ansatz, simulator=simulator) * weights).sum()

    (gradient,) = torch.autograd.grad(loss(angles), angles)
    ahead, behind = (loss(angles + sign * step) for sign in (1, -1))
    assert gradient.view(-1)[9].item() == pytest.approx((ahead - behind).item() / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 6, 11])
@pytest.mark.parametrize("is_stored", [False, True], ids=["undone", "stored"])
def test_form_of_many_qubits_equals_that_of_few(ansatz, n_qubits, is_stored):
    angles = torch.randn(2, *angles_shape(ansatz, 3, n_qubits), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 2**n_qubits, dtype=torch.float64)
    expected = probabilities(angles, ansatz)
    (gradient,) = torch.autograd.grad(expected, angles, weights)
    batch, pattern = angles.detach().view(2, 3, -1, n_qubits), ANSATZE[ansatz]
    circuits, p = torch_grouped.Circuits(batch, pattern.rotations, is_stored), torch.empty_like(weights)
    circuits.forward(p)
    torch.testing.assert_close(p, expected.detach(), rtol=0, atol=1e-12)
    found = circuits.backward(weights)
    torch.testing.assert_close(found.view_as(gradient), gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("simulator", "ansatz"), MANY)
def test_gradient_through_a_retained_graph_is_the_same_twice(simulator, ansatz):
    angles = torch.randn(angles_shape(ansatz, 2, 14), requires_grad=True)
    loss = probabilities(angles, ansatz, simulator=simulator).square().sum()
    (first,) = torch.autograd.grad(loss, angles, retain_graph=True)
    (second,) = torch.autograd.grad(loss, angles)
    assert torch.equal(first, second)


def test_one_qubit_closed_form():
    angles = torch.tensor([[0.3], [0.9]], dtype=torch.float64)
    expected = torch.tensor([math.cos(0.6) ** 2, math.sin(0.6) ** 2], dtype=torch.float64)  # rotations add up
    torch.testing.assert_close(probabilities(angles), expected)


def test_two_qubits_closed_form():
    a, b = 0.7, 1.9
    first, second = (torch.tensor([math.cos(x / 2) ** 2, math.sin(x / 2) ** 2], dtype=torch.float64) for x in (a, b))
    product = torch.outer(first, second)
    expected = torch.cat([product[0], product[1].flip(0)])  # CNOT exchanges |10> and |11>
    torch.testing.assert_close(probabilities(torch.tensor([[a, b]], dtype=torch.float64)), expected)


def _gates(angles, ansatz):
    """Yield ("RX" | "RY" | "RZ", qubit, angle) and ("CX", control, target) in time order."""
    rotations = ANSATZE[ansatz].rotations
    n_qubits = angles.shape[-1]
    for layer in angles.reshape(angles.shape[0], len(rotations), n_qubits):
        for axis, row in zip(rotations, layer, strict=True):
            yield from ((f"R{axis.upper()}", qubit, angle) for qubit, angle in enumerate(row.tolist()))
            yield from (("CX", qubit, qubit + 1) for qubit in range(n_qubits - 1))


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
def test_probabilities_equal_pennylane(ansatz):
    qml = pytest.importorskip("pennylane")
    angles = torch.randn(angles_shape(ansatz, 3, 5), dtype=torch.float64)

    @qml.qnode(qml.device("default.qubit", wires=5))
    def circuit():
        for gate, first, second in _gates(angles, ansatz):
            if gate == "CX":
                qml.CNOT([first, second])
            else:
                getattr(qml, gate)(second, first)
        return qml.probs(range(5))

    torch.testing.assert_close(probabilities(angles, ansatz), torch.tensor(circuit()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
def test_probabilities_equal_qiskit(ansatz):
    qiskit = pytest.importorskip("qiskit")
    quantum_info = pytest.importorskip("qiskit.quantum_info")
    angles = torch.randn(angles_shape(ansatz, 3, 5), dtype=torch.float64)
    circuit = qiskit.QuantumCircuit(5)
    for gate, first, second in _gates(angles, ansatz):
        if gate == "CX":
            circuit.cx(first, second)
        else:
            getattr(circuit, gate.lower())(second, first)
    expected = quantum_info.Statevector(circuit.reverse_bits()).probabilities()
    torch.testing.assert_close(probabilities(angles, ansatz), torch.tensor(expected), rtol=0, atol=1e-12)


SIZED = [(name, ansatz, n) for ansatz in sorted(ANSATZE) for n in (7, 14) for name in able(ANSATZE[ansatz], n, 3)]


@pytest.mark.parametrize(("simulator", "ansatz", "n_qubits"), SIZED)
def test_float32_is_close_to_float64(simulator, ansatz, n_qubits):
    angles = torch.randn(angles_shape(ansatz, 8, n_qubits), dtype=torch.float64)
    weights = torch.randn(2**n_qubits, dtype=torch.float64)
    results = []
    for dtype in (torch.float32, torch.float64):
        x = angles.to(dtype).requires_grad_()
        p = probabilities(x, ansatz, simulator=simulator)
        (gradient,) = torch.autograd.grad((p * weights.to(dtype)).sum(), x)
        results.append((p.detach().double(), gradient.double()))
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single, double, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("simulator", "ansatz", "n_qubits"), SIZED)
def test_bits_do_not_depend_on_gradients_threads_or_batch(simulator, ansatz, n_qubits):
    angles = torch.randn(3, *angles_shape(ansatz, 4, n_qubits))
    expected = probabilities(angles, ansatz, simulator=simulator)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = probabilities(angles, ansatz, simulator=simulator)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(expected, probabilities(angles.requires_grad_(), ansatz, simulator=simulator))
    assert torch.equal(expected, alone)
    assert torch.equal(expected.view(3, 1, -1), probabilities(angles.unsqueeze(1), ansatz, simulator=simulator))


def test_first_states_only():
    angles = torch.randn(2, 3, 5, requires_grad=True)
    part, whole = probabilities(angles, n_states=11), probabilities(angles)
    assert torch.equal(part, whole[:, :11])
    assert torch.equal(
        torch.autograd.grad(part.square().sum(), angles)[0],
        torch.autograd.grad(whole[:, :11].square().sum(), angles)[0],
    )


@pytest.mark.skipif(Version(torch.__version__) < Version("2.9"), reason="torch.compile is promised from 2.9 on")
@pytest.mark.parametrize(("simulator", "ansatz"), CASES)
def test_compiles_without_a_graph_break(simulator, ansatz):
    angles = torch.randn(2, *angles_shape(ansatz, 3, 5), requires_grad=True)

    def loss(x):
        return probabilities(x, ansatz, simulator=simulator).square().sum()

    torch.compiler.reset()  # or the cases count as recompilations of one function
    (expected,) = torch.autograd.grad(loss(angles), angles)
    (compiled,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(angles), angles)
    torch.testing.assert_close(compiled, expected)


# At most, forward and backward together; one more brings the layers of several circuits together in torch.
OPERATIONS = {"numba": 20, None: 56}


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
@pytest.mark.parametrize("n_circuits", [1, 8])
@pytest.mark.parametrize("compiler", OPERATIONS)
def test_forward_and_backward_take_few_operations(compiler, ansatz, n_circuits):
    pattern = ANSATZE[ansatz]
    n_qubits = 11 if len(pattern.rotations) == 2 and n_circuits > 1 else 12
    names = {one.name for one in HERE if one.compiler == compiler}
    if not names:
        pytest.skip(f"{compiler} is not installed")
    fastest = next(name for name in able(pattern, n_qubits, n_circuits) if name in names)
    angles = torch.randn(n_circuits, *angles_shape(ansatz, 8, n_qubits), requires_grad=True)
    weights = torch.randn(n_circuits, 2**n_qubits)

    def run():
        return torch.autograd.grad(probabilities(angles, ansatz, simulator=fastest), angles, weights)

    run()  # makes the tables
    assert n_operations(run) <= OPERATIONS[compiler]


BAD = [
    (torch.full((2, 3), float("nan")), "ry_cnot", ValueError, "NaN or infinite"),
    (torch.full((2, 3), float("inf")), "rx_cnot", ValueError, "NaN or infinite"),
    (torch.zeros(3), "ry_cnot", ValueError, r"shape \(\.\.\., depth, n_qubits\), got \(3,\)"),
    (torch.zeros(2, 3, 4), "rx_rz_cnot", ValueError, r"shape \(\.\.\., depth, 2, n_qubits\)"),
    (torch.zeros(2, 3, dtype=torch.float16), "ry_cnot", TypeError, "float32 or float64 tensor, got torch.float16"),
    ([[0.0]], "ry_cnot", TypeError, "got list"),
    (torch.zeros(2, 3), "ry", ValueError, "'ry_cnot', 'rx_cnot', 'rx_rz_cnot', 'ry_rz_cnot'"),
]


@pytest.mark.parametrize(("angles", "ansatz", "error", "message"), BAD)
def test_bad_input_is_named(angles, ansatz, error, message):
    with pytest.raises(error, match=message):
        probabilities(angles, ansatz)


@pytest.mark.parametrize("n_states", [-1, 0, 9])
def test_number_of_states_is_one_that_there_is(n_states):
    with pytest.raises(ValueError, match=f"`n_states`={n_states} is not allowed for 3 qubits. Set it from 1 to 8"):
        probabilities(torch.zeros(2, 3), n_states=n_states)


@pytest.mark.parametrize("ansatz", ANSATZE)
def test_autocast_changes_no_bit(ansatz):
    angles = torch.randn(angles_shape(ansatz, 3, 6), generator=torch.Generator().manual_seed(0)).requires_grad_()
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            p = probabilities(angles, ansatz)
            results.append((p.detach(), *torch.autograd.grad(p[0], angles)))
    for plain, autocast in zip(*results, strict=True):
        assert torch.equal(plain, autocast)


def test_second_derivatives_are_refused():
    angles = torch.ones(1, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(probabilities(angles)[0].square(), angles, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.sum().backward()
