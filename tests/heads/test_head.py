"""`QuantumHead` as a module: bad input, shots and errors, precision, memory, saving, cards."""

import dense
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from qpa_hf.heads import HeadSettings, QuantumHead
from qpa_hf.heads.circuit import MeasuredCircuit
from qpa_hf.heads.errors import PauliErrors, confuse
from qpa_hf.heads.head import SIMULATED_TOGETHER
from qpa_hf.measurement.noise import find_snapshot
from qpa_hf.model_cards import Result, RunRecord

SMALL = {"n_qubits": 4, "n_layers": 2}

BAD = {
    "classes": ({"n_classes": 1}, "`n_classes`=1 is not allowed"),
    "fraction of a qubit": ({"n_qubits": 2.5}, "`n_qubits`=2.5 is not allowed"),
    "too wide": ({"n_qubits": 21}, "circuits of 21 qubits; at most 20"),
    "more latent values than qubits": ({"n_encoders": 3, "n_latent": 2}, "give 6 latent values, which need as many"),
    "more encoders than qubits": ({"n_encoders": 5}, "5 encoders give 5 latent values"),
    "more latent values than an encoder has": ({"n_latent": 5}, "an encoder has 4 qubits"),
    "too far": ({"connectivity": 3}, "no two are farther apart than 2"),
    "fusion": ({"fusion": "sum"}, "`fusion`='sum' is not known. Use one of 'concatenate', 'mean'"),
    "latent values": ({"n_latent": 2.0}, "`n_latent`=2.0 is not allowed"),
    "frozen or not": ({"train_circuit": "no"}, "`train_circuit`='no' is not allowed"),
    "constant": ({"constant": -1}, "`constant`=-1 is not allowed"),
    "too many classes": ({"n_classes": 33}, "told apart by 6 measured qubits"),
    "shots": ({"shots": 0}, "`shots`=0 is not allowed"),
    "shots that are no number": ({"shots": True}, "`shots`=True is not allowed"),
    "noise": ({"noise": "moon"}, "`noise`='moon' is not known. Use one of 'torino', 'fez'"),
}


def embeddings(n_rows=3, n_features=12):
    return torch.randn(n_rows, n_features)


@pytest.mark.parametrize(("settings", "message"), BAD.values(), ids=BAD)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        HeadSettings(12, **SMALL | settings)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="'n_qbits' is not a setting of a head"):
        QuantumHead(12, n_qbits=4)


def test_an_embedding_of_the_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 11\), but the head was made for `n_features`=12"):
        QuantumHead(12, **SMALL)(embeddings(n_features=11))


def test_token_ids_are_refused():
    with pytest.raises(TypeError, match=r"must be a floating point tensor, got torch.int64"):
        QuantumHead(12, **SMALL)(torch.ones(3, 12, dtype=torch.long))


def test_leading_dimensions_are_kept():
    head, x = QuantumHead(12, 3, **SMALL), torch.randn(2, 5, 12)
    torch.testing.assert_close(head(x)[1, 4], head(x[1, 4]))


def test_an_empty_batch_gives_no_logits():
    assert QuantumHead(12, **SMALL)(embeddings(0)).shape == (0, 2)


def test_an_empty_batch_has_gradients_of_zero():
    head = QuantumHead(12, **SMALL)
    head(embeddings(0)).sum().backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in head.parameters())


def test_only_the_constant_tells_an_embedding_from_its_negative():
    x = embeddings(1)
    gaps = [
        (head(x) - head(-x)).abs().max().item()
        for head in (QuantumHead(12, **SMALL, constant=constant) for constant in (1.0, 0.0))
    ]
    assert gaps[0] > 1e-3 > 1e-6 > gaps[1]


def test_an_embedding_without_a_direction_has_logits():
    assert QuantumHead(12, **SMALL)(torch.zeros(1, 12)).isfinite().all()


def test_each_number_of_classes_starts_with_classes_apart():
    for n_classes in (2, 3, 5):
        weight = QuantumHead(12, n_classes, **SMALL).readout.weight
        assert len(weight.unique(dim=0)) == n_classes


def test_a_head_in_half_precision_computes_in_float32():
    head, x = QuantumHead(12, **SMALL).bfloat16(), embeddings().bfloat16()
    torch.testing.assert_close(head(x), head.float()(x.float()))


def test_autocast_does_not_reach_the_circuits():
    head, x = QuantumHead(12, **SMALL), embeddings()
    with torch.autocast("cpu", torch.bfloat16):
        found = head(x)
    assert torch.equal(found, head(x))


def test_frozen_circuits_train_the_readout_only():
    head = QuantumHead(12, **SMALL, train_circuit=False)
    assert head.n_trained() == {
        "angles of the encoders": 0,
        "angles of the measured circuit": 0,
        "readout": 4,
    }


def test_gradients_of_two_forward_passes_do_not_mix():
    # Working memory is used again: not before the backward pass that needs it.
    head, (x, y) = QuantumHead(12, **SMALL), (embeddings(), embeddings())
    apart = [torch.autograd.grad(head(some).square().sum(), head.angles)[0] for some in (x, y)]
    losses = [head(some).square().sum() for some in (x, y)]
    torch.testing.assert_close([torch.autograd.grad(loss, head.angles)[0] for loss in losses], apart)


def test_a_gradient_can_be_taken_twice_through_a_kept_graph():
    head = QuantumHead(12, **SMALL)
    loss = head(embeddings()).square().sum()
    first = torch.autograd.grad(loss, head.angles, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(loss, head.angles)[0])


@pytest.mark.parametrize("settings", [{"shots": 50}, {"noise": "torino"}, {"noise": "fez", "shots": "20x"}])
def test_evaluation_repeats_and_training_draws_anew(settings):
    head, x = QuantumHead(12, **SMALL, **settings), embeddings(8)
    head.eval()
    assert torch.equal(head(x), head(x))
    head.train()
    assert not torch.equal(head(x), head(x))


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("settings", [{"shots": 50}, {"noise": "torino"}], ids=str)
def test_activation_checkpointing_recomputes_the_same_draw(settings, use_reentrant):
    x, grads = embeddings(8).requires_grad_(), []
    for is_checkpointing in (False, True):
        head = QuantumHead(12, **SMALL, **settings).train()
        logits = checkpoint(head, x, use_reentrant=use_reentrant) if is_checkpointing else head(x)
        logits.square().sum().backward()
        grads.append([parameter.grad for parameter in head.parameters()])
    torch.testing.assert_close(*grads)


def test_shots_come_close_to_the_exact_logits():
    x = embeddings(4)
    exact, shots = (QuantumHead(12, **SMALL, shots=shots).eval()(x) for shots in (None, 10**6))
    torch.testing.assert_close(shots, exact, atol=0.01, rtol=0)


def test_shots_keep_the_exact_gradient_of_the_measured_value():
    # One measured qubit and a linear loss: the slope does not depend on what was measured.
    x = embeddings(4)
    grads = []
    for shots in (None, 10):
        head = QuantumHead(12, **SMALL, shots=shots).eval()
        grads.append(torch.autograd.grad(head(x)[:, 0].sum(), head.angles)[0])
    torch.testing.assert_close(*grads)


def test_a_device_without_errors_gives_the_exact_probabilities():
    uploads, angles = torch.randn(4, 3).double(), torch.randn(3, 8).double()
    circuit = MeasuredCircuit(n_reuploads=1, connectivity=2, n_measured=2)
    perfect = find_snapshot("torino").scaled(0)
    noisy = circuit.noisy(uploads, angles, perfect, 2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy, circuit.exact(uploads, angles), atol=1e-12, rtol=0)


def test_errors_average_to_the_density_matrix():
    # The reference applies every depolarising channel to a whole density matrix.
    snapshot = find_snapshot("torino").scaled(5)
    uploads, angles = torch.randn(3, 1).double(), torch.randn(2, 3).double()
    circuit = MeasuredCircuit(n_reuploads=1, connectivity=1, n_measured=1)
    found = circuit.noisy(uploads, angles, snapshot, 40_000, torch.Generator().manual_seed(0))
    gates = dense.measured_gates(uploads[:, 0].tolist(), angles.numpy(), 1, 1)
    expected = dense.noisy_probabilities(gates, snapshot, 3)
    np.testing.assert_allclose(found[:, 0].numpy(), expected, atol=0.005)


def test_a_course_of_errors_is_the_circuit_with_these_errors():
    # An X on the control before CNOT becomes X on both; an X before R_Y turns its sign.
    errors = PauliErrors(find_snapshot("torino").scaled(0), 2, 1, torch.Generator())
    errors.x[0] = True
    errors.cnot(0, 1)
    assert errors.x.flatten().tolist() == [True, True]
    assert [int(errors.rotation(qubit)) for qubit in (0, 1)] == [-1, -1]


def test_readout_errors_of_a_measured_qubit_are_those_of_its_snapshot():
    snapshot = find_snapshot("fez")
    qubit = snapshot.line_qubits(3)[0]
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = torch.tensor([[1 - qubit.false_one, qubit.false_zero], [qubit.false_one, 1 - qubit.false_zero]])
    torch.testing.assert_close(confuse(certain, snapshot, 3), expected)


def test_noise_pulls_expectations_towards_chance():
    x = embeddings(6)
    exact, noisy = (
        QuantumHead(12, **SMALL, noise=noise, n_trajectories=400).eval()(x).diff(dim=1).abs().mean()
        for noise in (None, "torino")
    )
    assert noisy < exact


@pytest.mark.parametrize("settings", [{}, {"n_encoders": 2, "shots": "20x"}, {"n_classes": 4, "noise": "fez"}])
def test_a_saved_head_gives_the_same_bits(settings, tmp_path):
    head, x = QuantumHead(12, **SMALL, **settings), embeddings()
    F.cross_entropy(head(x), torch.tensor([0, 1, 1])).backward()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.sub_(parameter.grad)
    head.save_pretrained(tmp_path)
    loaded = QuantumHead.from_pretrained(tmp_path)
    assert loaded.settings == head.settings
    assert torch.equal(loaded.eval()(x), head.eval()(x))


def test_the_card_says_what_was_trained_and_recorded(tmp_path):
    record = RunRecord(results=[Result("accuracy", 0.75, dataset="sst2", split="test")], license="apache-2.0")
    head = QuantumHead(12, **SMALL)
    head.save_pretrained(tmp_path, model_card_kwargs={"record": record})
    card = (tmp_path / "README.md").read_text()
    for part in ("| accuracy | 0.75 | sst2 | test |", "| readout | 4 |", "| n_qubits | 4 |", "license: apache-2.0"):
        assert part in card


def test_only_a_card_that_a_person_wrote_is_kept(tmp_path):
    QuantumHead(12, **SMALL).save_pretrained(tmp_path)
    QuantumHead(12, **SMALL | {"n_qubits": 5}).save_pretrained(tmp_path)
    assert "| n_qubits | 5 |" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine")
    QuantumHead(12, **SMALL).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_numpys_numbers_are_saved_as_pythons(tmp_path):
    settings = {
        "n_qubits": np.int64(4),
        "seed": np.int64(3),
        "constant": np.float32(1),
        "train_circuit": np.bool_(False),
    }
    head = QuantumHead(12, **settings)
    head.save_pretrained(tmp_path)
    assert (
        QuantumHead.from_pretrained(tmp_path).settings
        == head.settings
        == HeadSettings(12, 2, 4, seed=3, train_circuit=False)
    )


def test_inference_mode_leaves_nothing_behind_that_training_could_not_use():
    head, x = QuantumHead(11, **SMALL, n_reuploads=1), embeddings(7, 11)  # of a shape that no other test has
    with torch.inference_mode():
        head(x)
    head(x).sum().backward()
    with torch.inference_mode():
        head(x[:5])
    head(x[:5]).sum().backward()
    assert head.angles.grad.isfinite().all()


def test_a_head_made_in_inference_mode_can_be_trained():
    with torch.inference_mode():
        head = QuantumHead(12, **SMALL, shots=50)
    head.train()(embeddings()).sum().backward()
    assert head.angles.grad.isfinite().all()


def test_shots_of_many_rows_are_independent():
    head, x = QuantumHead(12, **SMALL, shots=4).eval(), embeddings(1).expand(3 * SIMULATED_TOGETHER, 12)
    with torch.no_grad():
        first, second, third = head(x).split(SIMULATED_TOGETHER)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_errors_of_many_rows_do_not_depend_on_a_gradient():
    head = QuantumHead(4, n_qubits=2, n_layers=1, noise="torino", n_trajectories=2).eval()
    x = embeddings(SIMULATED_TOGETHER + 500, 4)
    with torch.no_grad():
        expected = head(x)
    assert torch.equal(head(x), expected)


def test_a_card_without_a_record_claims_nothing(tmp_path):
    QuantumHead(12, **SMALL).save_pretrained(tmp_path)
    assert "No evaluation was recorded" in (tmp_path / "README.md").read_text()
