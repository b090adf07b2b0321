"""What CircuitMetricsCallback adds to Trainer's logs, and what it leaves alone."""

import math

import pytest
import torch
from cases import CASES, LM, make
from generated_methods import generated, method_model
from models import build
from peft import LoraConfig, get_peft_model
from trained import TARGETS, StopAt, trainer
from transformers import TrainerCallback

from qpa_hf import generate
from qpa_hf.trainer_callbacks import CircuitMetricsCallback
from qpa_hf.trainer_callbacks.norms import delta_norms

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
LAYERS = {f"model.layers.{i}.{kind}" for i in (0, 1) for kind in ("self_attn.q_proj", "self_attn.v_proj")} | {
    f"model.layers.{i}.mlp.down_proj" for i in (0, 1)
}
NORMS = {"delta_norm", *(f"delta_norm/{layer}" for layer in LAYERS)}
GRADIENT = {"angles_grad_norm", "angles_grad_variance"}
CIRCUIT = {"n_qubits", "entropy"}
SHARE = {"generation_share"}


class Tracker(TrainerCallback):
    """Keeps what a tracker would be sent."""

    def __init__(self):
        self.rows = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.rows.append(logs | {"step": state.global_step})


def ours(row):
    return {key.removeprefix("qpa/") for key in row if key.startswith("qpa/")}


def generator_of(run):
    return run.model.base_model.lora_qpa["default"]


def test_trackers_and_history_get_the_same_rows(tmp_path):
    tracker = Tracker()  # before ours, where Trainer puts those of `report_to`
    settings = {"max_steps": 4, "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    run = trainer(tmp_path, callbacks=[tracker, CircuitMetricsCallback(per_layer=True)], **settings)
    run.train()
    assert tracker.rows == run.state.log_history
    steps = [row["step"] for row in tracker.rows if ours(row) == NORMS | GRADIENT | CIRCUIT | SHARE]
    assert steps == [row["step"] for row in tracker.rows if "loss" in row] == [2, 4]


def test_rows_that_a_loss_function_logs_are_left_alone(tmp_path):
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], max_steps=1)
    compute = run.compute_loss

    def compute_and_log(*args, **kwargs):
        run.log({"own": 1.0})
        return compute(*args, **kwargs)

    run.compute_loss = compute_and_log
    run.train()
    assert [bool(ours(row)) for row in run.state.log_history] == [False, True, False]


WHAT_IS_LOGGED = {
    "random numbers": ({"source": "random"}, {}, NORMS | SHARE),
    "bits": ({"source": "bits"}, {}, NORMS | SHARE),
    "frozen angles": ({"train_circuit": False}, {}, NORMS | CIRCUIT | SHARE),
    "accumulated": ({}, {"gradient_accumulation_steps": 2}, NORMS | CIRCUIT | GRADIENT | SHARE),
    "reentrant checkpointing": (
        {},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        NORMS | CIRCUIT | GRADIENT | SHARE,
    ),
    "compiled": ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}, NORMS | CIRCUIT | GRADIENT),
}


@pytest.mark.parametrize("case", WHAT_IS_LOGGED)
def test_only_what_has_a_meaning_is_logged(case, tmp_path):
    adapter, arguments, expected = WHAT_IS_LOGGED[case]
    run = trainer(
        tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], max_steps=1, adapter=adapter, **arguments
    )
    run.train()
    assert ours(run.state.log_history[0]) == expected


GENERATED = {
    "PEFT method": (lambda: method_model("prefix"), GRADIENT | CIRCUIT | SHARE),
    "network": (lambda: generated(build("gpt2")), GRADIENT | CIRCUIT | SHARE),
    "random numbers": (lambda: generate(build("gpt2"), source="random", chunk_size=8), SHARE),
}


@pytest.mark.parametrize("case", GENERATED)
def test_generators_of_other_tensors_are_logged_without_norms(case, tmp_path):
    make_model, expected = GENERATED[case]
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], max_steps=1, model=make_model())
    run.train()
    assert ours(run.state.log_history[0]) == expected


def test_layers_are_logged_on_request_only(tmp_path):
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback()], max_steps=1)
    run.train()
    assert ours(run.state.log_history[0]) == {"delta_norm"} | GRADIENT | CIRCUIT | SHARE


def test_plain_lora_is_left_alone(tmp_path):
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], max_steps=1)
    run.model = get_peft_model(build("llama"), LoraConfig(target_modules=TARGETS, **LM))
    run.train()
    assert ours(run.state.log_history[0]) == set()


@pytest.mark.parametrize("max_grad_norm", [0.0, 1e-3, 1e3])
def test_gradient_is_that_before_clipping(max_grad_norm, tmp_path):
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback()], max_steps=2, max_grad_norm=max_grad_norm)
    gradients = []
    generator_of(run).angles.register_hook(lambda gradient: gradients.append(gradient.clone()))
    run.train()
    for row, gradient in zip(run.state.log_history[:2], gradients, strict=True):
        assert row["qpa/angles_grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-3)
        assert row["qpa/angles_grad_variance"] == pytest.approx(gradient.var(correction=0).item(), rel=1e-3)


def test_the_rest_is_that_of_the_weights_after_the_step(tmp_path):
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], max_steps=2)
    run.train()
    row, generator = run.state.log_history[1], generator_of(run)
    p = generator.circuit_probabilities().detach()
    assert row["qpa/n_qubits"] == generator.spec.n_qubits
    assert row["qpa/entropy"] == pytest.approx(-(p * p.log()).sum(-1).mean().item(), rel=1e-5)
    assert row["qpa/entropy"] <= generator.spec.n_qubits * math.log(2)
    layers = {name: run.model.get_submodule(f"base_model.model.{name}") for name in LAYERS}
    for name, layer in layers.items():
        expected = layer.get_delta_weight("default").norm().item()
        assert row[f"qpa/delta_norm/{name}"] == pytest.approx(expected, rel=1e-4)
    total = math.hypot(*(row[f"qpa/delta_norm/{name}"] for name in LAYERS))
    assert row["qpa/delta_norm"] == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_norms_are_those_of_pefts_own_delta(case):
    _, model = make(case)
    norms = delta_norms(model, model.base_model.lora_qpa["default"], "default")
    for name, norm in norms.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        torch.testing.assert_close(norm, layer.get_delta_weight("default").float().norm(), rtol=1e-3, atol=1e-6)


def test_generations_share_is_a_share(tmp_path):
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], max_steps=3)
    run.train()
    assert all(0 < row["qpa/generation_share"] < 1 for row in run.state.log_history if "loss" in row)


def test_training_is_the_same_with_and_without(tmp_path):
    runs = [trainer(tmp_path, callbacks=callbacks) for callbacks in ([], [CircuitMetricsCallback(per_layer=True)])]
    for run in runs:
        torch.manual_seed(0)
        run.train()
    for one, other in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)


def test_nothing_of_it_stays_in_the_model(tmp_path):
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], max_steps=2)
    run.train()
    generator = generator_of(run)
    assert not generator._forward_hooks
    assert not generator._forward_pre_hooks
    assert not any(p._post_accumulate_grad_hooks for p in generator.parameters())


LOGGING = {
    "first step": ({"logging_steps": 3, "logging_first_step": True}, [1, 3]),
    "epochs": ({"logging_strategy": "epoch", "max_steps": -1, "num_train_epochs": 2}, [12, 24]),
    "never": ({"logging_strategy": "no"}, []),
}


@pytest.mark.parametrize("case", LOGGING)
def test_metrics_come_whenever_trainer_logs(case, tmp_path):
    settings, steps = LOGGING[case]
    run = trainer(tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], **({"max_steps": 5} | settings))
    run.train()
    assert [row["step"] for row in run.state.log_history if GRADIENT <= ours(row)] == steps


def test_resumed_training_goes_on_logging(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trainer(tmp_path, callbacks=[StopAt(2), CircuitMetricsCallback(per_layer=True)], **settings).train()
    resumed = trainer(tmp_path, callbacks=[CircuitMetricsCallback(per_layer=True)], **settings)
    resumed.train(resume_from_checkpoint=True)
    whole = trainer(tmp_path / "whole", callbacks=[CircuitMetricsCallback(per_layer=True)], **settings)
    whole.train()
    found, expected = (
        [{key: row[key] for key in row if key.startswith("qpa/") and key != "qpa/generation_share"} for row in history]
        for history in (resumed.state.log_history, whole.state.log_history)
    )
    assert found == expected
