"""Shots, estimators and interpolation as settings of an adapter."""

import subprocess
import sys
from itertools import islice

import pytest
import torch
from helpers import adapted, logits, trainable
from models import build
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from trained import TARGETS, assert_close, checkpointed, gradients, loss_of, trainer
from transformers import GPT2Config

from qpa_hf import QPAConfig, materialize, plan
from qpa_hf.measurement import ESTIMATORS
from qpa_hf.measurement.interpolation import INTERPOLATIONS

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
FEW_SHOTS = {"shots": "2x", "interpolation": "network", "task_type": "CAUSAL_LM", "target_modules": TARGETS}
ERRORS = {"shots": None, "interpolation": "none", "noise": "torino"}  # with the fixture `trajectories`


def measured(**settings):
    return adapted("llama", **(FEW_SHOTS | settings))


def generator(model):
    return model.base_model.lora_qpa["default"]


def steps(model, rate, callee=None):
    """Train without end, and yield the loss of each step."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    while True:
        loss = loss_of(model if callee is None else callee, use_cache=False)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def trained(model, n_steps=2):
    """Take steps, so that the draw is not the first one."""
    list(islice(steps(model, 1e-2), n_steps))
    return model


@pytest.mark.usefixtures("trajectories")
@pytest.mark.parametrize("settings", [{}, ERRORS], ids=["shots", "errors"])
def test_each_training_step_measures_anew(settings):
    assert len(set(islice(steps(measured(**settings), 0.0), 3))) == 3


def test_the_forwards_of_one_step_share_its_draw():
    model = trained(measured(), 1)
    losses = [loss_of(model) for _ in range(2)]
    for loss in losses:
        loss.backward()
    assert losses[0] == losses[1]
    assert int(generator(model).draw) == 2


def test_a_model_without_a_task_measures_anew_as_well():
    config = QPAConfig(r=4, target_modules=["q_proj"], chunk_size=32, shots="8x")
    assert int(generator(trained(get_peft_model(build("llama"), config), 3)).draw) == 3


@pytest.mark.usefixtures("trajectories")
@pytest.mark.parametrize("settings", [{}, ERRORS], ids=["shots", "errors"])
def test_evaluation_keeps_the_last_steps_draw(settings):
    model = trained(measured(**settings))
    kept = logits(model, "llama")
    assert torch.equal(logits(model.eval(), "llama"), kept)
    with torch.enable_grad():
        assert torch.equal(
            model(input_ids=torch.arange(8)[None]).logits, model(input_ids=torch.arange(8)[None]).logits
        )


@pytest.mark.usefixtures("trajectories")
@pytest.mark.parametrize(
    "settings",
    [{"gradient": "exact"}, {"gradient": "parameter_shift"}, {"gradient": "spsa"}, ERRORS],
    ids=["exact", "parameter_shift", "spsa", "errors"],
)
def test_a_checkpoint_is_one_adapter_bit_for_bit(settings, tmp_path):
    model = trained(measured(**settings)).eval()
    expected = logits(model, "llama")
    model.save_pretrained(tmp_path / "native")
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "native").eval()
    assert torch.equal(logits(loaded, "llama"), expected)
    assert torch.equal(generator(loaded).draw, torch.tensor(2))


@pytest.mark.parametrize("shots", [None, "2x"])
def test_a_checkpoint_can_be_loaded_with_other_shots(shots, tmp_path):
    other = "2x" if shots is None else None
    settings = {"interpolation": "none", "gradient": "exact"}
    measured(shots=other, **settings).save_pretrained(tmp_path)
    config = QPAConfig.from_pretrained(str(tmp_path))
    config.shots = shots
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path, config=config).eval()
    assert torch.equal(logits(loaded, "llama"), logits(measured(shots=shots, **settings), "llama"))


def test_another_process_materializes_the_same_bits(tmp_path):
    model = trained(measured()).eval()
    model.save_pretrained(tmp_path / "native")
    materialize(model, tmp_path / "here")
    program = "import sys, qpa_hf; qpa_hf.materialize(sys.argv[1], sys.argv[2])"
    subprocess.run([sys.executable, "-c", program, tmp_path / "native", tmp_path / "there"], check=True)
    here, there = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("here", "there"))
    assert here.keys() == there.keys()
    assert all(torch.equal(here[key], there[key]) for key in here)


def test_a_resumed_run_draws_on_where_it_stopped(tmp_path):
    adapter = {"shots": "2x", "gradient": "exact", "interpolation": "blend"}
    settings = {"adapter": adapter, "save_strategy": "steps", "save_steps": 4}
    whole = trainer(tmp_path, **settings)
    whole.train()
    resumed = trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    states = [generator(run.model).state_dict() for run in (whole, resumed)]
    assert states[0]["draw"] == 8
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("gradient", ["exact", "parameter_shift", "spsa"])
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_activation_checkpointing_recomputes_the_same_draw(gradient, use_reentrant):
    results = []
    for is_checkpointing in (False, True):
        model = measured(gradient=gradient).train()
        if is_checkpointing:
            checkpointed(model, use_reentrant)
        (loss_of(model, use_cache=False) + loss_of(model, use_cache=False)).backward()  # a model of two towers
        results.append(gradients(model))
    assert_close(results[1], results[0])


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own, while tracing
@pytest.mark.parametrize("gradient", ["exact", "parameter_shift"])
def test_a_compiled_model_draws_anew_and_the_same(gradient):
    results = []
    for is_compiled in (False, True):
        model = measured(gradient=gradient).train()
        callee = torch.compile(model, fullgraph=True, backend="aot_eager") if is_compiled else model
        results.append(list(islice(steps(model, 0.0, callee), 2)))
    assert results[1] == pytest.approx(results[0], abs=1e-5)
    assert results[0][0] != pytest.approx(results[0][1], abs=1e-5)


def test_what_was_merged_is_taken_out_again():
    model = trained(measured())
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").base_layer
    before = layer.weight.clone()
    model.merge_adapter()
    model.generate(input_ids=torch.arange(8)[None], max_new_tokens=2, pad_token_id=0)  # in train mode
    model.unmerge_adapter()
    torch.testing.assert_close(layer.weight, before, rtol=0, atol=1e-6)


def test_bfloat16_leaves_the_draw_alone():
    model = trained(measured())
    expected = model.base_model.generated_tensors()
    found = model.to(torch.bfloat16).base_model.generated_tensors()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("gradient", ESTIMATORS)
def test_without_shots_every_estimator_gives_the_exact_adapter(gradient):
    found, exact = (measured(shots=None, interpolation="none", gradient=name) for name in (gradient, None))
    values, expected = found.base_model.generated_tensors(), exact.base_model.generated_tensors()
    assert max((values[key] - expected[key]).abs().max() for key in expected) < 1e-6


def test_parameter_shift_without_shots_gives_the_exact_gradients():
    found, expected = [], []
    for gradient, into in (("parameter_shift", found), ("exact", expected)):
        model = measured(shots=None, interpolation="none", gradient=gradient)
        loss_of(model).backward()
        into.append(generator(model).angles.grad)
    assert (found[0] - expected[0]).abs().max() < 1e-6


def test_more_shots_come_closer_at_the_statistical_rate():
    exact = measured(shots=None, interpolation="none").base_model.generated_tensors()

    def squared_distance(shots):
        model, total = measured(shots=shots, interpolation="none"), 0
        for _ in range(30):
            generator(model).draw_anew()
            found = model.base_model.generated_tensors()
            total += sum((found[key] - exact[key]).square().sum().item() for key in exact)
        return total

    assert squared_distance(1_000_000) / squared_distance(10_000) == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "exact"),
        ({"shots": 100}, "parameter_shift"),
        ({"shots": 100, "gradient": "exact"}, "exact"),
        ({"gradient": "spsa"}, "spsa"),
    ],
    ids=str,
)
def test_shots_do_not_silently_go_with_the_exact_gradient(settings, expected):
    assert QPAConfig(**settings).generator_spec(1000).estimator == expected


@pytest.mark.parametrize("source", ["random", "bits", "free", "direct"])
def test_controls_have_nothing_to_measure(source):
    model = measured(source=source)
    assert "draw" not in generator(model).state_dict()
    assert generator(model).spec.n_interpolation == 0


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_trained_number_is_counted(interpolation):
    model = measured(interpolation=interpolation)
    spec = generator(model).spec
    assert sum(p.numel() for p in trainable(model)) == spec.n_trainable


def test_plan_says_what_a_step_measures():
    config = QPAConfig.paper(2048, r=4, target_modules=["lm_head"], task_type="CAUSAL_LM", shots="20x")
    row = plan(config, GPT2Config()).rows[0]
    assert (row.measuring.circuits_per_step, row.measuring.shots_per_step) == (113, 113 * 20 * 128)


BAD_SETTINGS = [
    ({"shots": 0}, r"`shots`=0 is not allowed"),
    ({"shots": "x20"}, r"`shots`='x20' is not allowed"),
    ({"gradient": "adjoint"}, r"`gradient`='adjoint' is not known. Choose one of None, 'exact', 'parameter_shift'"),
    ({"shots": 10, "interpolation": "mean"}, r"`interpolation`='mean' is not known"),
    ({"noise": "osaka"}, r"`noise`='osaka' is not known. Choose one of None, 'torino', 'fez'"),
    ({"noise": "fez", "backend": "torchquantum"}, r"`noise`='fez' is not possible with `backend`='torchquantum'"),
    ({"interpolation": "network"}, r"nothing to fill in.*Set `shots`, or interpolation='none'"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=[str(case[0]) for case in BAD_SETTINGS])
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        QPAConfig(**settings)


def test_too_few_shots_for_the_qubits_are_refused_before_training():
    with pytest.raises(ValueError, match="every count would be zero"):
        measured(shots="0.001x")


def test_a_circuit_wider_than_the_device_is_refused_before_training():
    config = QPAConfig(noise="torino", chunk_size=1)
    with pytest.raises(ValueError, match="A circuit of 140 qubits does not fit on torino"):
        config.generator_spec(2**140)


@pytest.mark.parametrize("shots", [None, "2x"])
def test_a_noisy_checkpoint_is_one_adapter(shots, tmp_path):
    model = trained(measured(noise="fez", shots=shots, interpolation="none", chunk_size=128), 1).eval()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path).eval()
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))
    assert "the noise of ibm_fez" in (tmp_path / "README.md").read_text()


def test_cards_say_how_the_circuits_were_measured(tmp_path):
    model = measured(gradient="exact")
    model.save_pretrained(tmp_path)
    materialize(model, tmp_path / "plain")
    for folder in (tmp_path, tmp_path / "plain"):
        card = (folder / "README.md").read_text()
        n_shots = f"{generator(model).spec.n_shots:,}"
        assert f"measured with {n_shots} shots each" in card
        assert (
            "| gradient of the angles | exact, from the simulation (a quantum computer has no such gradient) |" in card
        )
        assert f"| network that interpolates between states | {generator(model).spec.n_interpolation} |" in card
