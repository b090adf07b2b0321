"""The channels alone: completeness, closed forms of one qubit, and what is refused."""

import math

import pytest
import torch

from qpa_hf.measurement.noise import find_snapshot, noisy_probabilities
from qpa_hf.measurement.noise.channels import (
    CHANNELS,
    PAULIS,
    Channel,
    damping_and_flip,
    depolarizing_strength,
    readout_matrix,
    relaxation_kraus,
    transfer_matrix,
)


def relaxation_matrix(time, t1, t2):
    return transfer_matrix(relaxation_kraus(time, t1, t2))


KRAUS = {
    "relaxation, T2 < T1": relaxation_kraus(2e-6, 1e-4, 5e-5),
    "relaxation, T1 < T2 < 2 T1": relaxation_kraus(2e-6, 1e-4, 1.5e-4),
    "relaxation, T2 = 2 T1": relaxation_kraus(2e-6, 1e-4, 2e-4),
    "relaxation, none": relaxation_kraus(2e-6, math.inf, math.inf),
}


@pytest.mark.parametrize("name", KRAUS)
def test_kraus_operators_are_complete(name):
    kraus = KRAUS[name]
    total = (kraus.mH @ kraus).sum(0)
    assert torch.allclose(total, torch.eye(total.shape[-1], dtype=total.dtype), atol=1e-14, rtol=0)


@pytest.mark.parametrize("t2", [5e-5, 1.5e-4, 2e-4])
def test_relaxation_decays_with_t1_and_t2(t2):
    t1, time = 1e-4, 3e-5
    rho = torch.tensor([[0.3, 0.4], [0.4, 0.7]], dtype=torch.complex128)
    kraus = relaxation_kraus(time, t1, t2)
    after = (kraus @ rho @ kraus.mH).sum(0)
    excited, coherence = 0.7 * math.exp(-time / t1), 0.4 * math.exp(-time / t2)
    expected = torch.tensor([[1 - excited, coherence], [coherence, excited]], dtype=torch.complex128)
    assert torch.allclose(after, expected, atol=1e-14)


def test_relaxation_for_two_times_is_that_for_their_sum():
    parts = relaxation_matrix(1e-6, 1e-4, 8e-5) @ relaxation_matrix(5e-6, 1e-4, 8e-5)
    assert torch.allclose(parts, relaxation_matrix(6e-6, 1e-4, 8e-5), atol=1e-15)


@pytest.mark.parametrize("n_qubits", [1, 2])
def test_gate_with_its_relaxation_has_the_calibrated_infidelity(n_qubits):
    relaxation, dim = relaxation_matrix(1e-6, 1e-4, 1.2e-4), 2**n_qubits
    strength = depolarizing_strength(0.02, [relaxation] * n_qubits)
    process = 1 + (1 - strength) * (float(relaxation.trace()) ** n_qubits - 1)
    assert 1 - (process / dim + 1) / (dim + 1) == pytest.approx(0.02)


def test_gate_does_not_depolarise_where_relaxation_is_all_of_its_error():
    assert depolarizing_strength(1e-5, [relaxation_matrix(1e-6, 1e-4, 1e-4)]) == 0


def test_readout_columns_are_distributions():
    matrix = readout_matrix(false_one=0.02, false_zero=0.05)
    assert matrix.tolist() == [[0.98, 0.05], [0.02, 0.95]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: damping_and_flip(-1.0, 1.0, 1.0), "belong to no channel"),
        (lambda: damping_and_flip(1.0, 1.0, 2.1), "t2 <= 2"),
    ],
)
def test_what_is_no_channel_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def pauli_channel(p):
    """Return a channel that does X, Y or Z with a probability of p each, however long it lasts."""
    weights = torch.tensor([1 - 3 * p, p, p, p], dtype=torch.float64).sqrt()
    return Channel(lambda time, qubit: weights[:, None, None] * PAULIS)


def means_and_errors(angles, snapshot):
    found = torch.stack(
        [noisy_probabilities(angles, "ry_rz_cnot", snapshot, n_trajectories=100, seed=seed) for seed in range(40)]
    )
    return found.mean(0), found.std(0) / math.sqrt(len(found))


def test_one_entry_adds_a_channel_to_density_matrices(monkeypatch):
    angles = torch.randn(2, 2, 2, 3, dtype=torch.float64)
    silent = noisy_probabilities(angles, "ry_rz_cnot", find_snapshot("fez").scaled(0))
    monkeypatch.setitem(CHANNELS, "own", pauli_channel(1 / 4))  # all states are mixed, and each outcome is as likely
    mixed = noisy_probabilities(angles, "ry_rz_cnot", find_snapshot("fez").scaled(0))
    assert (silent - 1 / 8).abs().max() > 0.1
    torch.testing.assert_close(mixed, torch.full_like(mixed, 1 / 8), rtol=0, atol=1e-12)


def test_one_entry_adds_a_channel_to_trajectories(monkeypatch, request):
    monkeypatch.setitem(CHANNELS, "own", pauli_channel(0.01))
    snapshot, angles = find_snapshot("fez").scaled(1), torch.randn(1, 2, 2, 3, dtype=torch.float64)
    exact = noisy_probabilities(angles, "ry_rz_cnot", snapshot)
    request.getfixturevalue("trajectories")
    mean, error = means_and_errors(angles, snapshot)
    assert ((mean - exact).abs() < 5 * error).all()
    monkeypatch.delitem(CHANNELS, "own")
    without, _ = means_and_errors(angles, snapshot)
    assert ((without - exact).abs() > 5 * error).any()
