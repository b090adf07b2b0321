"""Angles optimized without gradients."""

import pytest
import torch
from helpers import adapted, start
from peft import LoraConfig, get_peft_model
from trained import TARGETS, gradients, loss_of, trainer

from qpa_hf import optimize_angles
from qpa_hf.circuit import probabilities
from qpa_hf.optimize import METHODS
from qpa_hf.trainer_callbacks import OptimizeAnglesCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
SMALL = {"chunk_size": 256, "n_circuits": 1, "circuit_depth": 2, "shots": 1000, "gradient": "none"}

HEADER = '{"optimizing": "COBYLA 0.3", "generator": "", "start": [0.0]}\n'


def small(**settings):
    return adapted("llama", task_type="CAUSAL_LM", target_modules=TARGETS, **(SMALL | settings))


def angles(model):
    return model.base_model.lora_qpa["default"].angles


class Counted:
    """A loss that counts, and is interrupted after so many evaluations."""

    def __init__(self, until=1000):
        self.n, self.until = 0, until

    def __call__(self, model):
        self.n += 1
        if self.n > self.until:
            raise KeyboardInterrupt
        return loss_of(model).item()


def optimize(model, loss, **kwargs):
    return optimize_angles(model, loss, **({"max_evaluations": 40, "progress": False} | kwargs))


@pytest.mark.parametrize("method", METHODS)
def test_the_model_keeps_the_smallest_loss(method):
    model = small()
    found = optimize(model, Counted(), method=method)
    assert found.loss < found.first_loss
    assert loss_of(model).item() == pytest.approx(found.loss, abs=1e-7)


def test_only_the_angles_move_and_modes_stay():
    model = small().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimize(model, Counted())
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert [name.rpartition(".")[2] for name in changed] == ["angles"]
    assert model.training


def test_frozen_angles_stay():
    with pytest.raises(ValueError, match="angles are frozen"):
        optimize(small(train_circuit=False), Counted())


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_optimization_goes_on_where_it_stopped(method, tmp_path):
    whole = small()
    expected = optimize(whole, Counted(), method=method)
    model, first, second = small(), Counted(until=15), Counted()
    with pytest.raises(KeyboardInterrupt):
        optimize(model, first, method=method, state=tmp_path / "state")
    assert optimize(model, second, method=method, state=tmp_path / "state") == expected
    assert 15 + second.n == expected.n_evaluations
    assert torch.equal(angles(model), angles(whole))


def test_a_line_cut_short_is_evaluated_again(tmp_path):
    state = tmp_path / "state"
    expected = optimize(small(), Counted(), state=state)
    text = state.read_text()
    state.write_text(text[: len(text) // 2])
    assert optimize(small(), Counted(), state=state) == expected
    assert state.read_text() == text


def test_the_state_of_another_optimization_is_replaced(tmp_path):
    optimize(small(), Counted(), state=tmp_path / "state")
    loss = Counted()
    with pytest.warns(UserWarning, match="is of another optimization and is replaced"):
        found = optimize(small(shots=500), loss, state=tmp_path / "state")
    assert loss.n == found.n_evaluations


def test_a_raised_limit_is_no_other_optimization(tmp_path, monkeypatch):
    def measure(angles, ansatz, shots, device, folder, seed, **limits):
        p = probabilities(angles.flatten(0, -3), ansatz)
        return (p * shots).round().long().view(*angles.shape[:-2], -1)

    monkeypatch.setattr("qpa_hf.measurement.device.sample", measure)
    monkeypatch.setattr("qpa_hf.generator.checks.require_extra", lambda name: None)
    device = {"backend": "ibm", "device": "ibm_torino", "max_jobs": 50}
    expected = optimize(small(**device), Counted(), state=tmp_path / "state")
    loss = Counted()
    assert optimize(small(**device | {"max_jobs": 100}), loss, state=tmp_path / "state") == expected
    assert loss.n == 0


@pytest.mark.parametrize(
    "text", ["{cut", "[1, 2]\n", '{"my": "notes"}\n', HEADER + "no number\n"], ids=["cut", "list", "other", "loss"]
)
def test_a_state_that_is_something_else_stays_as_it_is(text, tmp_path):
    state, loss = tmp_path / "state", Counted()
    state.write_text(text)
    with pytest.raises(ValueError, match="is damaged, or no file that `optimize_angles` wrote"):
        optimize(small(), loss, state=state)
    assert (state.read_text(), loss.n) == (text, 0)


def test_a_directory_is_no_state(tmp_path):
    with pytest.raises(ValueError, match="no file that `optimize_angles` wrote"):
        optimize(small(), Counted(), state=tmp_path)


def test_no_gradient_reaches_the_angles():
    model = small()
    loss_of(model).backward()
    assert not [name for name in gradients(model) if name.endswith("angles")]


BAD = [
    ({"method": "BFGS"}, ValueError, "`method`='BFGS' is not known. Choose one of 'COBYLA', 'Nelder-Mead'"),
    ({"max_evaluations": 5}, ValueError, "COBYLA needs at least 6 for 4 angles"),
    ({"max_evaluations": 20.5}, ValueError, "`max_evaluations`=20.5 is not allowed. Set it to a whole number"),
    *(
        ({"step": step}, ValueError, f"`step`={step} is not allowed. Set it to a finite number above 0")
        for step in (0, -0.3, float("nan"), float("inf"))
    ),
    ({"loss": lambda model: float("nan")}, ValueError, "The loss is nan at evaluation 1; it must be finite"),
    ({"adapter_name": "other"}, TypeError, "has no QPA adapter 'other'"),
]


@pytest.mark.parametrize(("kwargs", "error", "message"), BAD, ids=[case[2][:20] for case in BAD])
def test_bad_input_is_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        optimize(small(), kwargs.get("loss", Counted()), **{k: v for k, v in kwargs.items() if k != "loss"})


def test_a_mapping_model_that_gives_only_zeros_is_trained_first():
    fresh = start("llama", task_type="CAUSAL_LM", target_modules=TARGETS, **SMALL)
    with pytest.raises(ValueError, match="Train the mapping model first, with gradient='none'"):
        optimize(fresh, Counted())


def test_a_control_has_no_angles():
    with pytest.raises(ValueError, match="source='random' has no angles"):
        optimize(small(source="random"), Counted())


def test_another_method_of_peft_has_no_angles():
    plain = get_peft_model(small().unload(), LoraConfig(target_modules=TARGETS))
    with pytest.raises(TypeError, match="has no QPA adapter 'default'"):
        optimize(plain, Counted())


def run(folder, loss, **kwargs):
    callback = OptimizeAnglesCallback(loss, every=3, max_evaluations=20, progress=False)
    return trainer(folder, [callback], adapter=SMALL, save_strategy="steps", save_steps=2, **kwargs)


def test_trainer_optimizes_angles_beside_its_own_optimizer(tmp_path):
    made = run(tmp_path, Counted())
    before = {name: p.detach().clone() for name, p in made.model.named_parameters() if p.requires_grad}
    made.train()
    rows = [row for row in made.state.log_history if "qpa/optimized_loss" in row]
    assert [row["step"] for row in rows] == [3, 6]
    assert all(row["qpa/optimized_loss"] <= row["qpa/optimized_from"] for row in rows)
    assert all(not torch.equal(p, before[n]) for n, p in made.model.named_parameters() if n in before)
    assert not list(tmp_path.glob("optimized-angles-*"))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"max_evaluations": 2}, "`max_evaluations`=2 is too small"), ({"step": 0}, "`step`=0 is not allowed")],
    ids=["too few evaluations", "no step"],
)
def test_bad_input_is_known_before_the_first_step(kwargs, message, tmp_path):
    callback = OptimizeAnglesCallback(Counted(), every=3, progress=False, **({"max_evaluations": 20} | kwargs))
    made = trainer(tmp_path, [callback], adapter=SMALL)
    with pytest.raises(ValueError, match=message):
        made.train()
    assert made.state.global_step == 0


def test_a_run_interrupted_in_the_optimization_is_resumed_without_repeating_any(tmp_path):
    whole = run(tmp_path / "whole", loss := Counted())
    whole.train()
    first, second = Counted(until=30), Counted()  # ends within the second call
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", first).train()
    resumed = run(tmp_path / "run", second)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert first.until + second.n == loss.n
    assert torch.equal(angles(resumed.model), angles(whole.model))
