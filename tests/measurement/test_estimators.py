import importlib
import math

import pytest
import torch

from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.measurement import Measurement, measure
from qpa_hf.measurement.estimators import ESTIMATORS
from qpa_hf.measurement.measure import CALL_VALUES
from qpa_hf.measurement.noise import DEVICES, noisy_probabilities
from qpa_hf.reproducible import seeded

DRAW = torch.tensor(0)
RANDOM = [name for name in ESTIMATORS if name != "none"]
DRAWN = [{"shots": 100}, {"noise": "torino"}]  # errors of few qubits are drawn with the fixture `trajectories`


def circuits(ansatz="ry_cnot", depth=3, n_qubits=3, dtype=torch.float64):
    """Angles of two circuits, and a loss that is linear in what is measured."""
    rng = seeded(0, "circuits")
    angles = torch.rand(2, *angles_shape(ansatz, depth, n_qubits), generator=rng, dtype=dtype) * 6
    weights = torch.randn(2, 2**n_qubits, generator=rng, dtype=dtype)
    return angles.requires_grad_(), weights


def gradient(angles, weights, how, draw=DRAW):
    return torch.autograd.grad((measure(angles, how, draw) * weights).sum(), angles)[0]


def mean_and_error(samples):
    return samples.mean(0), samples.std(0) / math.sqrt(len(samples))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_parameter_shift_without_shots_is_the_exact_gradient(ansatz, dtype, tolerance):
    angles, weights = circuits(ansatz, depth=8, n_qubits=5, dtype=dtype)
    weights = weights / weights.norm()
    exact, shifted = (gradient(angles, weights, Measurement(ansatz, gradient=g)) for g in ("exact", "parameter_shift"))
    assert (exact - shifted).abs().max() < tolerance


@pytest.mark.parametrize("ansatz", ANSATZE)
@pytest.mark.parametrize("device", DEVICES)
def test_parameter_shift_is_exact_on_a_noisy_device(device, ansatz):
    angles, weights = circuits(ansatz)
    found = [
        gradient(angles, weights, Measurement(ansatz, None, g, noise=device)) for g in ("exact", "parameter_shift")
    ]
    assert (found[0] - found[1]).abs().max() < 1e-12


@pytest.mark.parametrize("gradient_name", ESTIMATORS)
def test_values_without_shots_are_the_exact_probabilities(gradient_name):
    angles, _ = circuits()
    assert torch.equal(measure(angles, Measurement(gradient=gradient_name), DRAW), probabilities(angles))


def test_the_exact_gradient_is_that_of_the_simulation_at_the_measured_values():
    angles, _ = circuits()
    p = probabilities(angles)
    values = measure(angles, Measurement(shots=50), DRAW)
    (found,) = torch.autograd.grad(values.square().sum(), angles)
    (expected,) = torch.autograd.grad(p, angles, 2 * values.detach())
    assert torch.allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("shots", [None, 100])
def test_parameter_shift_is_unbiased(shots):
    angles, weights = circuits()
    how = Measurement(shots=shots, gradient="parameter_shift")
    found = torch.stack([gradient(angles, weights, how, torch.tensor(draw)) for draw in range(300)])
    mean, error = mean_and_error(found)
    assert ((mean - gradient(angles, weights, Measurement())).abs() < 5 * error + 1e-12).all()


def test_spsa_points_along_the_gradient_in_the_mean():
    angles, weights = circuits()
    how = Measurement(gradient="spsa")
    found = torch.stack([gradient(angles, weights, how, torch.tensor(draw)) for draw in range(400)])
    mean, error = mean_and_error(found)
    exact = gradient(angles, weights, Measurement())
    # The step's bias: a sine's slope over 0.1 rad each way, for the angle itself and, on average, for the other ones.
    assert ((mean - exact).abs() < 5 * error + 0.06 * exact.abs().max()).all()


@pytest.mark.parametrize("n_shots", [100, 400, 1600])
def test_parameter_shift_errs_with_the_root_of_the_shots(n_shots):
    angles, weights = circuits()
    how = Measurement(shots=n_shots, gradient="parameter_shift")
    exact = gradient(angles, weights, Measurement())
    errors = [gradient(angles, weights, how, torch.tensor(draw)) - exact for draw in range(100)]
    rms = torch.stack(errors).square().mean().sqrt() * math.sqrt(n_shots)
    assert rms.item() == pytest.approx(spread(angles, weights).item(), rel=0.2)


def spread(angles, weights):
    """Root mean square over the angles of the parameter shift's standard deviation with one shot a circuit."""
    found = []
    for index in range(angles[0].numel()):
        offset = torch.zeros_like(angles[0]).flatten()
        offset[index] = math.pi / 2
        variance = 0
        for sign in (1, -1):
            p = probabilities(angles.detach() + sign * offset.view_as(angles[0]))
            variance = variance + ((p * weights**2).sum(-1) - (p * weights).sum(-1) ** 2) / 4
        found.append(variance)
    return torch.stack(found).mean().sqrt()


@pytest.mark.usefixtures("trajectories")
@pytest.mark.parametrize("drawn", DRAWN, ids=str)
@pytest.mark.parametrize("gradient_name", ESTIMATORS)
def test_a_graph_does_not_change_what_is_measure(gradient_name, drawn):
    angles, _ = circuits()
    how = Measurement(gradient=gradient_name, **drawn)
    with_graph = measure(angles, how, DRAW)
    with torch.no_grad():
        assert torch.equal(with_graph, measure(angles, how, DRAW))


@pytest.mark.usefixtures("trajectories")
@pytest.mark.parametrize("drawn", DRAWN, ids=str)
@pytest.mark.parametrize("gradient_name", RANDOM)
def test_a_draw_decides_values_and_gradient(gradient_name, drawn):
    angles, weights = circuits(depth=1)
    how = Measurement(gradient=gradient_name, **drawn)
    values = [measure(angles, how, torch.tensor(draw)) for draw in (0, 0, 1)]
    gradients = [torch.autograd.grad((v * v * weights).sum(), angles)[0] for v in values]
    for first, again, other in (values, gradients):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.usefixtures("trajectories")
def test_shifted_circuits_err_independently_of_each_other_and_of_the_value(monkeypatch):
    # As on a device. One pair of moved circuits in each call.
    seeds = []
    monkeypatch.setattr(
        importlib.import_module("qpa_hf.measurement.measure"),
        "noisy_probabilities",
        lambda *args, seed: seeds.append(seed) or noisy_probabilities(*args, seed=seed),
    )
    monkeypatch.setitem(CALL_VALUES, "cpu", 1)
    angles, weights = circuits(depth=1)
    gradient(angles, weights, Measurement(noise="torino", gradient="parameter_shift"))
    assert len(set(seeds)) == len(seeds) == 1 + angles[0].numel()


def test_noise_that_is_exact_has_nothing_to_draw():
    angles, _ = circuits()
    first, second = (measure(angles, Measurement(noise="torino"), torch.tensor(draw)) for draw in (0, 1))
    assert torch.equal(first, second)


def test_shots_are_drawn_from_what_a_noisy_device_reads():
    angles, _ = circuits()
    values = measure(angles, Measurement(shots=10**6, noise="torino"), DRAW)
    expected, ideal = noisy_probabilities(angles, device="torino"), probabilities(angles)
    assert (values - expected).abs().max() < 5e-3 < (expected - ideal).abs().max()


@pytest.mark.usefixtures("trajectories")
@pytest.mark.parametrize("drawn", DRAWN, ids=str)
def test_counting_on_before_the_backward_pass_leaves_its_draw_alone(drawn):
    angles, weights = circuits(depth=1)
    how = Measurement(gradient="parameter_shift", **drawn)
    draw = torch.tensor(0)
    loss = (measure(angles, how, draw) * weights).sum()
    draw.add_(1)
    assert torch.equal(torch.autograd.grad(loss, angles)[0], gradient(angles, weights, how))


def test_without_a_gradient_nothing_reaches_the_angles():
    angles, _ = circuits()
    assert not measure(angles, Measurement(shots=100, gradient="none"), DRAW).requires_grad


def test_shifted_circuits_in_several_calls_give_the_gradient_of_one_call(monkeypatch):
    angles, weights = circuits()
    how = Measurement(gradient="parameter_shift")
    together = gradient(angles, weights, how)
    monkeypatch.setitem(CALL_VALUES, "cpu", 100)
    assert torch.allclose(gradient(angles, weights, how), together, atol=1e-14)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, while tracing
@pytest.mark.parametrize("gradient_name", RANDOM)
def test_torch_compile_draws_the_same_shots(gradient_name):
    angles, weights = circuits(dtype=torch.float32)
    how = Measurement(shots=100, gradient=gradient_name)

    def loss(angles, draw):
        return (measure(angles, how, draw).square() * weights).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(loss(angles, DRAW), angles)
    assert torch.allclose(torch.autograd.grad(compiled(angles, DRAW), angles)[0], expected, atol=1e-6)
