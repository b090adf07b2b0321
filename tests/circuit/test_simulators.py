"""The table of simulators: what is chosen, what is named, one more entry, and compilers that are missing or broken."""

import itertools
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from named import able

from qpa_hf.circuit import ANSATZE, angles_shape, memory_bytes, probabilities, simulators
from qpa_hf.circuit.simulators import Simulator, reference
from qpa_hf.circuit.simulators.compilers import load


def both_passes(angles, ansatz="ry_cnot", simulator=None):
    leaf = angles.clone().requires_grad_()
    p = probabilities(leaf, ansatz, simulator=simulator)
    p[:, 0].sum().backward()
    return p.detach(), leaf.grad


@pytest.mark.parametrize("ansatz", ANSATZE)
def test_the_first_of_the_table_that_can_is_chosen(ansatz):
    angles = torch.randn(2, *angles_shape(ansatz, 3, 4))
    first = able(ANSATZE[ansatz], 4, 2)[0]
    assert all(map(torch.equal, both_passes(angles, ansatz), both_passes(angles, ansatz, first)))


def test_torchquantum_is_taken_by_name_alone():
    names = [one.name for one in simulators.SIMULATORS if not one.is_automatic]
    assert names == ["torchquantum"]


BAD = {
    "unknown": (
        "fastest",
        "ry_cnot",
        3,
        "`simulator`='fastest' is not known. Choose one of 'triton_gates', 'num",
    ),
    "no name": (3, "ry_cnot", 3, "`simulator`=3 is not known. Choose one of"),
    "pattern": (
        "torch_walsh",
        "ry_cnot",
        3,
        r"'torch_walsh' cannot simulate 2 circuit\(s\) of 3 qubits with R_Y, c",
    ),
    "size": ("torch_folded", "ry_cnot", 13, r"cannot simulate 2 circuit\(s\) of 13 qubits.* Set None for the fastest"),
    "device": ("triton_gates", "ry_cnot", 3, "'triton_gates' cannot simulate .* on 'cpu'"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_simulator_that_cannot_is_refused_in_one_sentence(case):
    name, ansatz, n_qubits, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        probabilities(torch.zeros(2, *angles_shape(ansatz, 2, n_qubits)), ansatz, simulator=name)


def test_memory_is_that_of_the_simulator_that_is_named():
    plain, folded = (memory_bytes(8, 2, 1, "ry_cnot", simulator=name) for name in ("reference", "torch_folded"))
    assert plain == reference.ARRAYS * 4 * 2**8 != folded


@pytest.fixture
def add(monkeypatch):
    """Add a simulator from outside: a module in their room, and one entry at the head of the table."""
    numbers = itertools.count()

    def put(module, **entry):
        name = f"own_{next(numbers)}_of_{id(module)}"  # what has been tried out is known by its name
        monkeypatch.setitem(sys.modules, f"qpa_hf.circuit.simulators.{name}", module)
        monkeypatch.setattr(simulators, "SIMULATORS", (Simulator(name, **entry), *simulators.SIMULATORS))
        return name

    return put


def recording(calls):
    """Return a simulator of circuits of three qubits, gate by gate, that notes its passes."""

    def forward(angles, ansatz):
        calls.append("forward")
        return reference.forward(angles, ansatz)

    def backward(*args):
        calls.append("backward")
        return reference.backward(*args)

    return SimpleNamespace(
        can=lambda ansatz, n_qubits, n_circuits: n_qubits == 3,
        n_arrays=lambda *_: 7,
        forward=forward,
        backward=backward,
    )


def test_one_entry_adds_a_simulator(add):
    calls = []
    name = add(recording(calls))
    angles = torch.randn(2, 2, 3)
    found = both_passes(angles)
    assert calls == ["forward", "backward"]
    assert all(map(torch.equal, found, both_passes(angles, simulator="reference")))
    assert memory_bytes(3, 2, 1, "ry_cnot") == 7 * 4 * 2**3
    both_passes(torch.randn(2, 2, 4))
    assert calls == ["forward", "backward"]  # the next of the table took what this one cannot
    probabilities(angles, simulator=name)
    assert calls[2:] == ["forward"]


def test_a_simulator_for_another_device_is_not_loaded(add):
    calls = []
    add(recording(calls), device="cuda")
    both_passes(torch.randn(2, 2, 3))
    assert not calls


def with_autograd(can=lambda *_: True):
    """Return a simulator that is differentiated by autograd alone, as TorchQuantum is."""

    def forward(angles, ansatz):
        leaf = angles.detach().requires_grad_(angles.requires_grad)
        with torch.set_grad_enabled(leaf.requires_grad):
            p, _ = reference.forward(leaf, ansatz)
        graphs.append(p.requires_grad)
        return p.detach(), (leaf, p)

    def backward(angles, kept, grad, ansatz):
        return torch.autograd.grad(kept[1], kept[0], grad)[0]

    graphs = []
    return SimpleNamespace(can=can, n_arrays=lambda *_: 1, forward=forward, backward=backward, graphs=graphs)


def test_a_simulator_may_be_differentiated_by_autograd(add):
    module = with_autograd()
    name = add(module, is_automatic=False, is_traceable=False)
    angles = torch.randn(2, 2, 3)
    for found, expected in zip(both_passes(angles, simulator=name), both_passes(angles), strict=True):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        probabilities(angles.requires_grad_(), simulator=name)
    assert module.graphs == [True, False]


# Dynamo looks at the gradient of what it is given after the break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_what_cannot_be_traced_breaks_the_graph_and_has_its_gradient(add):
    name = add(with_autograd(), is_automatic=False, is_traceable=False)
    angles = torch.randn(2, 2, 3, requires_grad=True)

    def loss(x):
        return probabilities(x, simulator=name).square().sum()

    (expected,) = torch.autograd.grad(loss(angles), angles)
    (found,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(angles), angles)
    torch.testing.assert_close(found, expected)


def test_a_missing_compiler_is_no_error():
    assert load("no_such_compiler", "qpa_hf.circuit.simulators.numba_gates") is None


def test_a_simulator_whose_compiler_is_missing_is_refused_by_name(add):
    name = add(SimpleNamespace(), compiler="no_such_compiler")
    with pytest.raises(ImportError, match=f"`simulator`='{name}' needs no_such_compiler, which cannot be imported"):
        probabilities(torch.ones(2, 3), simulator=name)


def test_a_broken_compiler_is_named_and_done_without():
    with pytest.warns(UserWarning, match="slowly, because json cannot be imported: No module named 'qpa_hf.missing'"):
        assert load("json", "qpa_hf.missing") is None


@pytest.fixture
def failing(add):
    """Put a compiled simulator at the head of the table whose passes raise what they are given."""

    def put(forward=None, backward=None):
        def run(error, found):
            if error is not None:
                raise error
            return found

        module = SimpleNamespace(
            can=lambda *_: True,
            n_arrays=lambda *_: 1,
            forward=lambda angles, _: run(forward, (angles.new_zeros(len(angles), 2 ** angles.shape[-1]), None)),
            backward=lambda angles, *_: run(backward, torch.zeros_like(angles)),
        )
        return add(module, device="cpu", compiler="json")

    return put


FAILURES = {
    "no C compiler": RuntimeError("Failed to find C compiler. Please specify via CC environment variable."),
    "compilation": type("CompilationError", (Exception,), {})("at 1:0:\ndef forward_kernel("),
    "out of resources": type("OutOfResources", (Exception,), {})("out of resource: shared memory"),
    "no Python.h": FileNotFoundError("Python.h"),
    "without a word": NotImplementedError(),
}


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("failure", FAILURES)
def test_kernels_that_fail_are_done_without_in_both_passes(where, failure, failing):
    angles = torch.randn(2, 3, 4)
    expected = both_passes(angles)
    failing(**{where: FAILURES[failure]})
    with pytest.warns(UserWarning, match="simulated slowly, because json cannot run them here: [^\n]+$"):
        found = both_passes(angles)
    assert all(map(torch.equal, found, expected))


def test_each_compiled_simulator_that_fails_is_done_without(failing):
    angles = torch.randn(2, 3, 4)
    expected = both_passes(angles)
    failing(forward=RuntimeError("first"))
    failing(forward=RuntimeError("second"))
    with pytest.warns(UserWarning, match="second"), pytest.warns(UserWarning, match="first"):
        found = both_passes(angles)
    assert all(map(torch.equal, found, expected))


def test_kernels_that_fail_are_warned_of_once(failing):
    failing(forward=RuntimeError("broken"))
    with pytest.warns(UserWarning, match="broken"):
        first = both_passes(torch.ones(1, 3, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(map(torch.equal, first, both_passes(torch.ones(1, 3, 4))))
        both_passes(torch.ones(1, 3, 5))
        both_passes(torch.ones(1, 3, 4, dtype=torch.float64))
        both_passes(torch.ones(1, 3, 2, 4), "ry_rz_cnot")


def test_kernels_that_are_named_raise_what_they_raise(failing):
    name = failing(forward=RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        probabilities(torch.ones(1, 3, 4), simulator=name)


def test_circuits_that_do_run_are_not_done_without(failing):
    failing()
    assert not probabilities(torch.ones(1, 3, 4)).any()


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_too_little_memory_says_nothing_of_a_compiler(error, failing):
    failing(forward=error("full"))
    with pytest.raises(error, match="full"):
        probabilities(torch.ones(1, 3, 4))
    failing()
    assert not probabilities(torch.ones(1, 3, 4)).any()


@pytest.mark.parametrize("ansatz", ANSATZE)
def test_memory_of_angles_is_left_resizable(ansatz):
    angles = torch.randn(2, *angles_shape(ansatz, 3, 4)).requires_grad_()
    probabilities(angles, ansatz)[:, 0].sum().backward()
    angles.untyped_storage().resize_(0)  # what FSDP2 does between passes; Numba's view of an array forbids it
