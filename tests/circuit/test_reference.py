"""The plain form against full matrices, for every pattern, and every fast form against the plain one."""

import itertools
from importlib.util import find_spec

import pytest
import torch
from matrices import dense
from named import HERE, able

from qpa_hf.circuit import ENTANGLERS, Ansatz, probabilities, register_ansatz
from qpa_hf.circuit.ansatz import Entangler
from qpa_hf.circuit.simulators import find_simulator, reference

DEPTH, SIZES = 2, (1, 2, 3, 4, 5)
PATTERNS = [axes for n in (1, 2, 3) for axes in itertools.product("xyz", repeat=n)]
ALL = [Ansatz(axes, entangler) for entangler in ENTANGLERS for axes in PATTERNS]


def draw(ansatz, n_qubits, n_circuits=2):
    """Return angles and what their probabilities are weighted with."""
    rng = torch.Generator().manual_seed(n_qubits)
    shape = (n_circuits, DEPTH, len(ansatz.rotations), n_qubits)
    angles = torch.randn(shape, dtype=torch.float64, generator=rng) * 2
    return angles, torch.randn(n_circuits, 2**n_qubits, dtype=torch.float64, generator=rng)


def by_shifts(angles, weights, ansatz):
    """Return one circuit's gradient from its values at angles that are moved by a quarter turn, one at a time."""
    turns = torch.eye(angles.numel(), dtype=torch.float64).view(-1, *angles.shape) * torch.pi / 2
    p, _ = reference.forward(torch.cat([angles + turns, angles - turns]), ansatz)
    ahead, behind = (p @ weights).chunk(2)
    return ((ahead - behind) / 2).view_as(angles)


def run(simulator, angles, weights, ansatz):
    p, kept = simulator.forward(angles, ansatz)
    return p, simulator.backward(angles, kept, weights.contiguous(), ansatz)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_there_are_39_patterns_of_one_to_three_rotations():
    assert (len(PATTERNS), len(ALL)) == (39, 39 * 6)


@pytest.mark.parametrize("n_qubits", SIZES)
@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_plain_form_equals_full_matrices(entangler, n_qubits):
    for axes in PATTERNS:
        ansatz = Ansatz(axes, entangler)
        angles, weights = draw(ansatz, n_qubits)
        p, gradient = run(reference, angles, weights, ansatz)
        close(p[1], dense(angles[1], ansatz))
        close(gradient[1], by_shifts(angles[1], weights[1], ansatz))


@pytest.mark.parametrize("entangler", ENTANGLERS)
def test_autograd_differentiates_the_plain_form(entangler):
    for axes in PATTERNS:
        angles, weights = draw(Ansatz(axes, entangler), 4)
        leaf = angles.clone().requires_grad_()
        p, _ = reference.forward(leaf, Ansatz(axes, entangler))
        (gradient,) = torch.autograd.grad(p, leaf, weights)
        close(gradient, run(reference, angles, weights, Ansatz(axes, entangler))[1])


ONE, TWO = {("y",)}, {("x", "z"), ("y", "z")}
# The rotations that each fast form knows; all of them before the chain of CNOTs alone.
KNOWN = {
    "numba_walsh": {("x",)},
    "numba_gates": {("x",)} | ONE | TWO,
    "torch_walsh": {("x",)},
    "torch_folded": ONE | TWO,
    "torch_grouped": {("x",)} | ONE | TWO,
}


@pytest.mark.parametrize("simulator", [one for one in HERE if one.name != "reference"], ids=lambda one: one.name)
def test_fast_form_equals_the_plain_one_wherever_it_says_that_it_can(simulator):
    served = set()
    for ansatz, n_qubits in itertools.product(ALL, SIZES):
        if simulator.module.can(ansatz, n_qubits, 2):
            served.add(ansatz)
            angles, weights = draw(ansatz, n_qubits)
            for found, expected in zip(
                run(simulator.module, angles, weights, ansatz), run(reference, angles, weights, ansatz), strict=True
            ):
                close(found, expected)
    assert served == {Ansatz(axes) for axes in KNOWN[simulator.name]}


@pytest.mark.parametrize("n_qubits", [1, 3])
def test_probabilities_equal_the_plain_form_for_every_pattern(n_qubits, registry):
    for number, ansatz in enumerate(ALL):
        register_ansatz(f"own_{number}", ansatz)
        angles, weights = draw(ansatz, n_qubits)
        leaf = (angles.squeeze(2) if len(ansatz.rotations) == 1 else angles).requires_grad_()
        expected, expected_gradient = run(reference, angles.detach(), weights, ansatz)
        for simulator in (None, *able(ansatz, n_qubits, 2)):
            p = probabilities(leaf, f"own_{number}", simulator=simulator)
            (gradient,) = torch.autograd.grad(p, leaf, weights)
            close(p.detach(), expected)
            close(gradient.view(angles.shape), expected_gradient)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_what_no_fast_form_knows_is_simulated_by_the_plain_one(device):
    for ansatz in (Ansatz(("z", "y")), Ansatz(("y",), "cnot_ring"), Ansatz(("y", "z"), "cz_chain")):
        if device != "cuda" or find_spec("triton") is None or len(ansatz.rotations) > 1:
            assert find_simulator(ansatz, 17, 1, torch.device(device), torch.float32).name == "reference"


OWN = Ansatz(("z", "x", "y"), "cz_ring")


@pytest.mark.parametrize("n_qubits", [1, 6, 15])
def test_bits_of_the_plain_form_do_not_depend_on_gradients_or_threads(n_qubits, registry):
    register_ansatz("own", OWN)
    angles = torch.randn(3, 2, 3, n_qubits)
    expected = probabilities(angles, "own")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = probabilities(angles, "own")
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(expected, probabilities(angles.requires_grad_(), "own"))
    assert torch.equal(expected, alone)


def test_plain_form_trains_after_it_was_used_in_inference_mode(registry):
    register_ansatz("own", Ansatz(("x", "y", "x"), "cz_all_pairs"))
    with torch.inference_mode():
        inside = probabilities(torch.ones(2, 3, 6), "own")
    leaf = torch.ones(2, 3, 6, requires_grad=True)
    p = probabilities(leaf, "own")
    p.square().sum().backward()
    assert torch.equal(p, inside)
    assert leaf.grad.abs().max() > 0


def test_plain_form_compiles_without_a_graph_break(registry):
    register_ansatz("own", OWN)
    angles = torch.randn(2, 3, 3, 4, requires_grad=True)

    def loss(x):
        return probabilities(x, "own").square().sum()

    (expected,) = torch.autograd.grad(loss(angles), angles)
    (found,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(angles), angles)
    torch.testing.assert_close(found, expected)


def test_float32_of_the_plain_form_is_close_to_float64():
    angles, weights = draw(OWN, 7)
    single = run(reference, angles.float(), weights.float(), OWN)
    for found, expected in zip(single, run(reference, angles, weights, OWN), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)


def test_one_entry_adds_an_entangler(monkeypatch, registry):
    star = Entangler("cnot", lambda n_qubits: [(0, qubit) for qubit in range(1, n_qubits)])
    monkeypatch.setattr("qpa_hf.circuit.ansatz.ENTANGLERS", {**ENTANGLERS, "cnot_star": star})
    ansatz = Ansatz(("y", "z"), "cnot_star")
    register_ansatz("own", ansatz)
    angles, weights = draw(ansatz, 4)
    leaf = angles.requires_grad_()
    p = probabilities(leaf, "own")
    (gradient,) = torch.autograd.grad(p, leaf, weights)
    close(p[0].detach(), dense(angles[0].detach(), ansatz))
    close(gradient[0], by_shifts(angles[0].detach(), weights[0], ansatz))
    assert str(ansatz) == "R_Y R_Z, cnot_star"
