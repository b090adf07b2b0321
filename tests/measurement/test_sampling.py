import math

import pytest
import torch
from scipy.stats import chisquare

from qpa_hf.circuit import probabilities
from qpa_hf.measurement.shots import BLOCK_SHOTS, n_shots, sample
from qpa_hf.reproducible import seeded


def circuits(*batch, n_qubits=4):
    angles = torch.rand(*batch, 6, n_qubits, generator=seeded(0, "circuits")) * 6
    return probabilities(angles)


@pytest.mark.parametrize("shots", [1, 100, BLOCK_SHOTS + 1])
def test_every_circuit_is_measured_as_often_as_asked(shots):
    counts = sample(circuits(2, 3), shots, seeded(0, "shots"))
    assert counts.dtype == torch.int64
    assert counts.min() >= 0
    assert counts.sum(-1).tolist() == [[shots] * 3] * 2


@pytest.mark.parametrize("p", [[0, 1, 0, 0], [0.5, 0, 0.5, 0], [1, 0, 0, 0], [0, 0, 0, 1]], ids=str)
def test_states_without_probability_are_never_measured(p):
    p = torch.tensor(p, dtype=torch.float32)
    counts = sample(p.expand(50, 4), 1000, seeded(0, "shots"))
    assert counts[:, p == 0].sum() == 0


def test_counts_are_multinomial():
    p, shots, n = circuits(1)[0], 50, 20_000
    counts = sample(p.expand(n, -1), shots, seeded(1, "shots")).double()
    expected = torch.diag(p) - torch.outer(p, p)
    # The largest of 256 deviations of a covariance, each of standard error below shots / sqrt(n) * max(p).
    assert (counts.T.cov() / shots - expected).abs().max() < 5 * p.max() / math.sqrt(n)
    assert chisquare(counts.sum(0), p.double() / p.double().sum() * shots * n).pvalue > 1e-3


@pytest.mark.parametrize("shots", [100, 10_000, 1_000_000])
def test_errors_fall_with_the_root_of_the_shots(shots):
    p = circuits(40)
    frequencies = sample(p, shots, seeded(2, "shots")) / shots
    squared = (frequencies - p).square().sum(-1).mean().item()
    assert squared * shots == pytest.approx((p * (1 - p)).sum(-1).mean().item(), rel=0.2)


def test_another_rounding_moves_single_shots_only():
    p, shots = circuits(8, n_qubits=8), 5000
    other = (p.double() * (1 + 1e-7 * torch.randn(p.shape, generator=seeded(0, "noise")))).float()
    counts, others = (sample(x, shots, seeded(3, "shots")) for x in (p, other))
    assert (counts - others).abs().sum() <= 8


def test_a_seed_decides_every_shot():
    p = circuits(2)
    first, again, other = (sample(p, 100, seeded(seed, "shots")) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_what_the_cpu_draws():
    p = circuits(8, n_qubits=8)
    on_gpu = sample(p.cuda(), 5000, seeded(3, "shots"))
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), sample(p, 5000, seeded(3, "shots")))


@pytest.mark.parametrize(
    ("shots", "expected"), [(None, None), (1, 1), (500, 500), ("20x", 640), ("0.1x", 3), (".5x", 16), ("1.x", 32)]
)
def test_shots_are_a_number_or_so_many_a_state(shots, expected):
    assert n_shots(shots, 5) == expected


@pytest.mark.parametrize(
    "shots", [0, -1, 1.5, 100.0, True, "", "x", "20", "20X", "-1x", "0x", "0.0x", "1e3x", "nanx", " 20x", [20]]
)
def test_malformed_shots_are_refused_in_a_sentence(shots):
    with pytest.raises(ValueError, match="`shots`=.*is not allowed. Set it to None"):
        n_shots(shots, 5)


def test_less_than_one_shot_is_refused_with_the_least_that_is_allowed():
    with pytest.raises(
        ValueError, match=r"0.32 shots for 5 qubits, so that every count would be zero. Set at least 1 shot"
    ):
        n_shots("0.01x", 5)
