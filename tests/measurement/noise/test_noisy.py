"""`noisy_probabilities` without Qiskit: limits, gradients, trajectories against the density matrix, bad input."""

import pytest
import torch

from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.measurement.noise import DEVICES, find_snapshot, noisy_probabilities
from qpa_hf.measurement.noise.density import density_probabilities
from qpa_hf.measurement.noise.trajectories import trajectory_probabilities

WIDTHS = (1, 2, 3, 4, 5, 6)


def draw(ansatz, n_qubits, depth=3, batch=(2,), dtype=torch.float64):
    shape = (*batch, *angles_shape(ansatz, depth, n_qubits))
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(n_qubits)) * 6 - 3


def total_variation(p, q):
    return (p - q).abs().sum(-1).max().item() / 2


@pytest.mark.parametrize("n_qubits", WIDTHS)
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_no_noise_is_the_exact_circuit(ansatz, n_qubits):
    angles = draw(ansatz, n_qubits)
    p = noisy_probabilities(angles, ansatz, find_snapshot("torino").scaled(0))
    assert (p - probabilities(angles, ansatz)).abs().max() <= 1e-6


def test_no_noise_is_the_exact_circuit_with_trajectories():
    angles = draw("rx_rz_cnot", 11, depth=1)
    p = noisy_probabilities(angles, "rx_rz_cnot", find_snapshot("fez").scaled(0), n_trajectories=1)
    assert (p - probabilities(angles, "rx_rz_cnot")).abs().max() <= 1e-6


def test_noise_grows_from_nothing_in_proportion():
    angles, snapshot = draw("ry_cnot", 4), find_snapshot("torino")
    exact = probabilities(angles, "ry_cnot")
    near = [total_variation(noisy_probabilities(angles, "ry_cnot", snapshot.scaled(f)), exact) for f in (1e-4, 2e-4)]
    assert near[1] / near[0] == pytest.approx(2, rel=1e-2)


@pytest.mark.parametrize("device", DEVICES)
def test_rows_sum_to_one(device):
    p = noisy_probabilities(draw("ry_rz_cnot", 5, batch=(2, 3)), "ry_rz_cnot", device)
    assert (p.sum(-1) - 1).abs().max() <= 1e-12


@pytest.mark.parametrize("ansatz", ANSATZE)
def test_gradient_is_that_of_finite_differences(ansatz):
    angles = draw(ansatz, 3, depth=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: noisy_probabilities(a, ansatz, "torino"), angles)


def test_gradient_is_the_same_when_slots_are_computed_twice(monkeypatch):
    angles = draw("ry_cnot", 4).requires_grad_()

    def gradient():
        return torch.autograd.grad(noisy_probabilities(angles).square().sum(), angles)[0]

    kept = gradient()
    monkeypatch.setattr("qpa_hf.measurement.noise.density.KEPT_BYTES", 0)
    assert torch.equal(gradient(), kept)


def test_single_precision_agrees_with_double():
    angles = draw("ry_rz_cnot", 6, depth=8)
    p = noisy_probabilities(angles.float(), "ry_rz_cnot")
    assert p.dtype == torch.float32
    assert (p - noisy_probabilities(angles, "ry_rz_cnot")).abs().max() <= 1e-5


def test_batch_is_its_circuits_one_by_one():
    angles = draw("rx_rz_cnot", 5, batch=(2, 2))
    p = noisy_probabilities(angles, "rx_rz_cnot", "fez", n_states=7)
    one = torch.stack([noisy_probabilities(a, "rx_rz_cnot", "fez") for a in angles.flatten(0, 1)])
    assert torch.allclose(p, one.view(2, 2, -1)[..., :7], atol=1e-14)


def test_autocast_does_not_reach_the_circuit():
    angles = draw("ry_cnot", 5, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p = noisy_probabilities(angles)
    assert torch.equal(p, noisy_probabilities(angles))


def strong():
    return find_snapshot("torino").scaled(5)


def test_trajectories_converge_as_one_over_the_root_of_their_number():
    """Root mean square over many groups: halved, within a fifth, by four times as many trajectories."""
    angles = draw("ry_rz_cnot", 4, depth=2, batch=(1,)).flatten(1, 2)
    exact = density_probabilities(angles, "ry_rz_cnot", strong())
    errors = []
    for n_trajectories, n_groups in ((16, 400), (64, 100)):
        many = angles.expand(n_groups, -1, -1)
        found = trajectory_probabilities(many, "ry_rz_cnot", strong(), n_trajectories, seed=1)
        errors.append((found - exact).square().mean().sqrt().item())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)


def test_trajectories_have_the_density_matrix_as_their_mean():
    """Each probability within 5 standard errors of the mean over 8000 independent trajectories."""
    angles = draw("rx_rz_cnot", 3, depth=2, batch=(1,)).flatten(1, 2)
    single = trajectory_probabilities(angles.expand(8000, -1, -1), "rx_rz_cnot", strong(), 1, seed=2)
    exact = density_probabilities(angles, "rx_rz_cnot", strong())
    assert ((single.mean(0) - exact).abs() <= 5 * single.std(0) / 8000**0.5 + 1e-12).all()


def test_trajectories_have_the_gradient_of_the_density_matrix_as_their_mean():
    """Each entry within 5 standard errors of the mean over 8000 independent trajectories."""
    angles = draw("ry_cnot", 3, depth=2, batch=(1,))
    weights = torch.arange(8.0, dtype=torch.float64)
    many = angles.expand(8000, -1, -1).clone().requires_grad_()
    single = trajectory_probabilities(many, "ry_cnot", strong(), 1, seed=3) @ weights
    (of_single,) = torch.autograd.grad(single.sum(), many)
    leaf = angles.clone().requires_grad_()
    (exact,) = torch.autograd.grad((density_probabilities(leaf, "ry_cnot", strong()) @ weights).sum(), leaf)
    assert ((of_single.mean(0) - exact[0]).abs() <= 5 * of_single.std(0) / 8000**0.5 + 1e-12).all()


@pytest.mark.parametrize(("seeds", "is_same"), [((4, 4), True), ((4, 5), False)])
def test_seed_decides_what_trajectories_draw(seeds, is_same):
    angles = draw("ry_cnot", 11, depth=2, batch=())
    first, second = (noisy_probabilities(angles, n_trajectories=4, seed=seed) for seed in seeds)
    assert torch.equal(first, second) == is_same


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"device": "osaka"}, "`device`='osaka' has no snapshot. Choose one of 'torino', 'fez'"),
        ({"ansatz": "rz_cnot"}, "`ansatz`='rz_cnot' is not known"),
        ({"n_trajectories": 0}, "`n_trajectories`=0 is not allowed"),
        ({"angles": torch.zeros(1, 21)}, "21 qubits does not fit on torino: its snapshot has lines of up"),
        ({"angles": torch.zeros(1, 134)}, "134 qubits does not fit on torino: the device has 133"),
        ({"angles": torch.full((1, 2), torch.nan)}, "NaN"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(kwargs, message):
    with pytest.raises(ValueError, match=message):
        noisy_probabilities(**{"angles": torch.zeros(1, 2)} | kwargs)


@pytest.mark.parametrize("factor", [-0.1, 100])
def test_scaling_that_is_no_noise_is_refused(factor):
    with pytest.raises(ValueError, match="`factor`="):
        find_snapshot("torino").scaled(factor)
