"""The simulation against independent ones, closed forms and finite differences."""

import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.measure import n_operations
from qpa_hf.circuit import ANSATZE, angles_shape, check_memory, grouped, memory_bytes, probabilities


def rotation(axis, angle):
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    entries = {"x": [[c, -1j * s], [-1j * s, c]], "y": [[c, -s], [s, c]], "z": [[c - 1j * s, 0], [0, c + 1j * s]]}
    return torch.tensor(entries[axis], dtype=torch.complex128)


def dense(angles, ansatz):
    """Multiply full matrices, gate by gate, in float64."""
    rotations = ANSATZE[ansatz].rotations
    angles = angles.double().reshape(angles.shape[0], len(rotations), -1)
    n_qubits = angles.shape[-1]
    state = torch.zeros(2**n_qubits, dtype=torch.complex128)
    state[0] = 1
    index = torch.arange(2**n_qubits)
    for layer in angles:
        for axis, row in zip(rotations, layer, strict=True):
            for qubit, angle in enumerate(row.tolist()):
                left, right = torch.eye(2**qubit), torch.eye(2 ** (n_qubits - qubit - 1))
                state = torch.kron(torch.kron(left, rotation(axis, angle)), right) @ state
            for qubit in range(n_qubits - 1):
                control = (index >> (n_qubits - 1 - qubit)) & 1
                state = state[index ^ (control << (n_qubits - 2 - qubit))]
    return state.abs() ** 2


@given(
    ansatz=st.sampled_from(sorted(ANSATZE)),
    n_qubits=st.integers(1, 7),
    depth=st.integers(1, 4),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_probabilities_equal_dense_matrices(form, ansatz, n_qubits, depth, batch, seed):
    shape = (batch, *angles_shape(ansatz, depth, n_qubits))
    angles = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
    expected = torch.stack([dense(circuit, ansatz) for circuit in angles])
    torch.testing.assert_close(probabilities(angles, ansatz), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 5])
def test_gradient_equals_finite_differences(form, ansatz, n_qubits):
    angles = torch.randn(2, *angles_shape(ansatz, 2, n_qubits), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: probabilities(x, ansatz), (angles,))


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
def test_gradient_of_many_qubits_equals_a_difference_quotient(form, ansatz):
    angles = torch.randn(angles_shape(ansatz, 2, 14), dtype=torch.float64, requires_grad=True)
    weights, step = torch.randn(2**14, dtype=torch.float64), torch.zeros_like(angles)
    step.view(-1)[9] = 1e-6
    (gradient,) = torch.autograd.grad((probabilities(angles, ansatz) * weights).sum(), angles)
    ahead, behind = ((probabilities(angles + sign * step, ansatz) * weights).sum() for sign in (1, -1))
    assert gradient.view(-1)[9].item() == pytest.approx((ahead - behind).item() / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
@pytest.mark.parametrize("n_qubits", [1, 2, 3, 6, 11])
@pytest.mark.parametrize("max_stored", [0, 2**18], ids=["undone", "stored"])
def test_form_of_many_qubits_equals_that_of_few(ansatz, n_qubits, max_stored, monkeypatch):
    monkeypatch.setattr(grouped, "MAX_STORED", max_stored)
    angles = torch.randn(2, *angles_shape(ansatz, 3, n_qubits), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 2**n_qubits, dtype=torch.float64)
    expected = probabilities(angles, ansatz)
    (gradient,) = torch.autograd.grad(expected, angles, weights)
    batch, axes = angles.detach().view(2, 3, -1, n_qubits), ANSATZE[ansatz].rotations
    p, kept = grouped.forward(batch, axes)
    torch.testing.assert_close(p, expected.detach(), rtol=0, atol=1e-12)
    found = grouped.backward(batch, kept, weights, axes)
    torch.testing.assert_close(found.view_as(gradient), gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
def test_gradient_through_a_retained_graph_is_the_same_twice(form, ansatz):
    angles = torch.randn(angles_shape(ansatz, 2, 14), requires_grad=True)
    loss = probabilities(angles, ansatz).square().sum()
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


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
@pytest.mark.parametrize("n_qubits", [7, 14])
def test_float32_is_close_to_float64(form, ansatz, n_qubits):
    angles = torch.randn(angles_shape(ansatz, 8, n_qubits), dtype=torch.float64)
    weights = torch.randn(2**n_qubits, dtype=torch.float64)
    results = []
    for dtype in (torch.float32, torch.float64):
        x = angles.to(dtype).requires_grad_()
        p = probabilities(x, ansatz)
        (gradient,) = torch.autograd.grad((p * weights.to(dtype)).sum(), x)
        results.append((p.detach().double(), gradient.double()))
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single, double, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
@pytest.mark.parametrize("n_qubits", [9, 14])
def test_bits_do_not_depend_on_gradients_threads_or_batch(form, ansatz, n_qubits):
    angles = torch.randn(3, *angles_shape(ansatz, 4, n_qubits))
    expected = probabilities(angles, ansatz)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = probabilities(angles, ansatz)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(expected, probabilities(angles.requires_grad_(), ansatz))
    assert torch.equal(expected, alone)
    assert torch.equal(expected.view(3, 1, -1), probabilities(angles.unsqueeze(1), ansatz))


def test_first_states_only():
    angles = torch.randn(2, 3, 5, requires_grad=True)
    part, whole = probabilities(angles, n_states=11), probabilities(angles)
    assert torch.equal(part, whole[:, :11])
    assert torch.equal(
        torch.autograd.grad(part.square().sum(), angles)[0],
        torch.autograd.grad(whole[:, :11].square().sum(), angles)[0],
    )


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
def test_compiles_without_a_graph_break(form, ansatz):
    angles = torch.randn(2, *angles_shape(ansatz, 3, 5), requires_grad=True)

    def loss(x):
        return probabilities(x, ansatz).square().sum()

    (expected,) = torch.autograd.grad(loss(angles), angles)
    (compiled,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(angles), angles)
    torch.testing.assert_close(compiled, expected)


@pytest.mark.parametrize("ansatz", sorted(ANSATZE))
@pytest.mark.parametrize("n_circuits", [1, 8])
def test_forward_and_backward_take_few_operations(form, ansatz, n_circuits):
    n_qubits = 11 if len(ANSATZE[ansatz].rotations) == 2 and n_circuits > 1 else 12
    angles = torch.randn(n_circuits, *angles_shape(ansatz, 8, n_qubits), requires_grad=True)
    weights = torch.randn(n_circuits, 2**n_qubits)
    probabilities(angles, ansatz)  # makes the tables
    n = n_operations(lambda: torch.autograd.grad(probabilities(angles, ansatz), angles, weights))
    # In torch one more brings the layers of several circuits together.
    assert n <= (20 if form == "compiled" else 55 + (n_circuits > 1))


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


def test_too_many_qubits_are_refused_before_allocating():
    needed = memory_bytes(45, 8, 1, "ry_cnot")
    with pytest.raises(MemoryError, match=f"45 qubits need about {needed:,} bytes, but .* are free"):
        check_memory(45, 8, 1, "ry_cnot")


PEAK = """
import torch
from qpa_hf.circuit import angles_shape, probabilities

def read(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

def run(n_circuits, n_qubits):
    shape = n_circuits, *angles_shape({ansatz!r}, 3, n_qubits)
    angles = torch.randn(shape, dtype={dtype}, requires_grad=True)
    p = probabilities(angles, {ansatz!r})
    torch.autograd.grad(p, angles, torch.ones_like(p))

torch.set_num_threads(1)
for n_qubits in (14, 18):  # libraries load and make their workspaces
    run(1, n_qubits)
before = read("VmHWM")
run({n_circuits}, {n_qubits})
print(read("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's peak from /proc")
@pytest.mark.parametrize(("n_circuits", "n_qubits"), [(1, 22), (64, 16)])
@pytest.mark.parametrize(
    ("ansatz", "dtype"), [("ry_cnot", torch.float32), ("ry_cnot", torch.float64), ("ry_rz_cnot", torch.float32)]
)
def test_measured_peak_stays_below_the_announced_one(ansatz, dtype, n_circuits, n_qubits):
    code = PEAK.format(ansatz=ansatz, dtype=dtype, n_circuits=n_circuits, n_qubits=n_qubits)
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # large arrays are given back, and leave no holes
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    announced = memory_bytes(n_qubits, 3, n_circuits, ansatz, dtype)
    assert announced / 3 < int(done.stdout) < announced


@pytest.mark.parametrize("n_qubits", [10, 20])
def test_announced_memory_doubles_with_double_precision(n_qubits):
    single, double = (memory_bytes(n_qubits, 8, 1, "ry_cnot", dtype) for dtype in (torch.float32, torch.float64))
    assert double == 2 * single


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
