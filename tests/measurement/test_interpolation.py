import itertools

import pytest
import torch
from torch.nn import functional as F

from qpa_hf.measurement.interpolation import INTERPOLATIONS, TRAINED, Shares, interpolate, layer_shapes
from qpa_hf.reproducible import seeded

N_QUBITS, SHOTS = 3, 10
COUNTS = torch.tensor([[4, 0, 0, 3, 0, 2, 0, 1], [10, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.float64)


def layers(interpolation="network"):
    rng = seeded(0, "layers")
    shapes = layer_shapes(interpolation, N_QUBITS)
    draw = [[torch.randn(shape, generator=rng, dtype=torch.float64) for shape in ((o, i), (o,))] for o, i in shapes]
    return [(weight.requires_grad_(), bias.requires_grad_()) for weight, bias in draw]


def measured(shares=COUNTS / SHOTS, shots=SHOTS):
    noise = torch.rand(shares.shape, generator=seeded(0, "noise"), dtype=torch.float64)
    return Shares(shares, shots, layers(), noise)


def neighbours(counts, state):
    """Counts of the states that differ in one bit, that of qubit 0 (the most significant) first."""
    bits = list(itertools.product((0, 1), repeat=N_QUBITS))
    flipped = [tuple(b ^ (i == qubit) for i, b in enumerate(bits[state])) for qubit in range(N_QUBITS)]
    return torch.stack([counts[bits.index(other)] for other in flipped])


def network(counts, state):
    (w0, b0), (w1, b1) = layers()
    inputs = neighbours(counts, state) / SHOTS * 2**N_QUBITS
    return F.softplus(w1 @ F.gelu(w0 @ inputs + b0) + b1).squeeze()


def estimate(interpolation, counts, state, noise):
    """The interpolated count of one state, by the definition."""
    own = counts[state]
    if interpolation == "laplace":
        return own + 1
    if interpolation == "blend":
        return own + network(counts, state)
    if interpolation == "none" or own > 0:
        return own
    return {"network": network, "neighbours": lambda *_: neighbours(counts, state).mean(), "random": lambda *_: noise}[
        interpolation
    ](counts, state)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_each_state_gets_what_the_definition_says(interpolation):
    given = measured()
    expected = torch.stack(
        [
            torch.stack([estimate(interpolation, counts, state, noise[state]) for state in range(2**N_QUBITS)])
            for counts, noise in zip(COUNTS, given.noise, strict=True)
        ]
    )
    expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(interpolate(interpolation, given), expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_many_shots_leave_nothing_to_interpolate(interpolation):
    p = torch.softmax(torch.randn(4, 2**N_QUBITS, generator=seeded(1, "p"), dtype=torch.float64), -1)
    torch.testing.assert_close(interpolate(interpolation, measured(p, 10**9)), p, rtol=0, atol=1e-6)


@pytest.mark.parametrize("interpolation", [name for name in INTERPOLATIONS if name != "neighbours"])
def test_what_is_never_measured_has_no_probability_in_the_limit(interpolation):
    p = torch.tensor([[0.5, 0, 0, 0.5, 0, 0, 0, 0]], dtype=torch.float64)
    given = Shares(p, 10**9, layers(), torch.rand(p.shape))
    torch.testing.assert_close(interpolate(interpolation, given), p, rtol=0, atol=1e-6)


@pytest.mark.parametrize("interpolation", TRAINED)
def test_the_network_and_the_measured_values_get_gradients(interpolation):
    given = measured((COUNTS / SHOTS).requires_grad_())
    values = interpolate(interpolation, given)
    (values.square().sum()).backward()
    tensors = [given.shares, *itertools.chain(*given.layers)]
    assert all(tensor.grad.abs().sum() > 0 for tensor in tensors)
