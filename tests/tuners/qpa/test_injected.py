"""QPA adapters in a bare model, as transformers, its pipelines and sentence-transformers put them there."""

import copy
import pickle

import pytest
import torch
from bare import SIZES, TWO, around, base_of, move, saved_base, trained
from helpers import disturb, logits, start
from models import build, inputs
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from qpa_hf import QPAConfig, generate, initialize_basis, materialize
from qpa_hf.trainer_callbacks import CircuitMetricsCallback, MaterializeCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]


@pytest.fixture
def folder(tmp_path):
    """A saved base model."""
    return saved_base(tmp_path / "base")


def requires_grad(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


CASES = {
    "default": {},
    "dora": {"use_dora": True},
    "frozen initialisation from its seed": {"save_init": False},
    "shots": {"shots": 10},
    "lora bias": {"lora_bias": True},
}


@pytest.mark.parametrize("case", CASES)
def test_bare_model_computes_and_saves_what_a_peft_model_does(case, folder, tmp_path):
    bare, peft_model = trained(folder, **CASES[case]), around(folder, **CASES[case])
    assert torch.equal(logits(bare, "llama"), logits(peft_model, "llama"))
    bare.save_pretrained(tmp_path / "a")
    peft_model.save_pretrained(tmp_path / "b")
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("writer", [trained, around])
@pytest.mark.parametrize("case", CASES)
def test_every_way_of_loading_gives_the_same_bits(case, writer, folder, tmp_path):
    model = writer(folder, **CASES[case])
    expected = logits(model, "llama")
    model.save_pretrained(tmp_path / "native")
    bare = base_of(folder)
    info = bare.load_adapter(str(tmp_path / "native"))
    assert not getattr(info, "missing_keys", None)
    assert not getattr(info, "unexpected_keys", None)
    found = {
        "load_adapter": bare,
        "PeftModel": PeftModel.from_pretrained(base_of(folder), tmp_path / "native"),
    }
    if writer is around:
        found["AutoModel"] = AutoModelForCausalLM.from_pretrained(tmp_path / "native").eval()
    for how, loaded in found.items():
        assert torch.equal(logits(loaded, "llama"), expected), how
        assert not requires_grad(loaded) or how == "AutoModel"


def test_forward_begins_a_step_of_training(folder):
    model = trained(folder).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    losses = []
    for _ in range(3):
        loss = model(**inputs("llama"), labels=inputs("llama")["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_adapters_are_switched_disabled_and_deleted(folder, tmp_path):
    model = trained(folder)
    plain, one = logits(base_of(folder), "llama"), logits(model, "llama")
    model.add_adapter(QPAConfig(**(TWO | {"target_modules": ["k_proj"]})), "b")
    move(model.lora_qpa["b"], seed=2)
    two = logits(model, "llama")
    assert {name.split(".")[1] for name in requires_grad(model)} == {"b"}
    model.save_pretrained(tmp_path / "b")
    assert all("_proj" not in key for key in load_file(tmp_path / "b" / "adapter_model.safetensors"))
    model.set_adapter("default")
    assert torch.equal(logits(model, "llama"), one)
    assert {name.split(".")[1] for name in requires_grad(model)} == {"default"}
    model.disable_adapters()
    assert torch.equal(logits(model, "llama"), plain)
    model.enable_adapters()
    assert torch.equal(logits(model, "llama"), one)
    other = base_of(folder)
    other.load_adapter(str(tmp_path / "b"), "b")
    assert torch.equal(logits(other, "llama"), two)
    model.delete_adapter("b")
    assert torch.equal(logits(model, "llama"), one)
    model.delete_adapter("default")
    assert torch.equal(logits(model, "llama"), plain)
    assert type(model) is LlamaForCausalLM
    assert not [key for key in model.state_dict() if "lora" in key]
    model.add_adapter(QPAConfig(**TWO))  # and again
    assert torch.equal(logits(model, "llama"), plain)


def test_lora_and_qpa_live_side_by_side(folder):
    model = base_of(folder)
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    lora = logits(model, "llama")
    model.add_adapter(QPAConfig(**TWO), "b")
    move(model.lora_qpa["b"])
    assert not torch.equal(logits(model, "llama"), lora)
    model.set_adapter("default")
    assert torch.equal(logits(model, "llama"), lora)
    model.delete_adapter("b")
    assert torch.equal(logits(model, "llama"), lora)


def test_loaded_adapter_is_trained_on(folder, tmp_path):
    trained(folder).save_pretrained(tmp_path)
    model = base_of(folder)
    model.load_adapter(str(tmp_path), is_trainable=True)
    assert requires_grad(model)
    model(**inputs("llama"), labels=inputs("llama")["input_ids"]).loss.backward()
    assert model.lora_qpa["default"].angles.grad is not None


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("again", [copy.deepcopy, pickled])
def test_copies_are_independent(again, folder):
    model = trained(folder)
    before = logits(model, "llama")
    other = again(model)
    assert torch.equal(logits(other, "llama"), before)
    move(other.lora_qpa["default"], seed=5)
    assert not torch.equal(logits(other, "llama"), before)
    assert torch.equal(logits(model, "llama"), before)


def test_any_module_takes_an_adapter():
    model = inject_adapter_in_model(QPAConfig(**SIZES, target_modules=["hidden", "conv"]), build("mlp"))
    expected = start("mlp", **SIZES, target_modules=["hidden", "conv"])
    disturb(expected)
    move(model.lora_qpa["default"])
    assert torch.equal(logits(model, "mlp"), logits(expected, "mlp"))


def test_module_that_calls_all_its_children_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"into a bare Sequential.* Use `get_peft_model` instead"):
        inject_adapter_in_model(QPAConfig(target_modules=["0"]), model)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]


def test_generated_model_takes_no_adapter_nor_the_other_way_round(folder):
    model = generate(base_of(folder), ["model.norm.weight"], chunk_size=4, n_circuits=1, circuit_depth=1)
    with pytest.raises(ValueError, match="`generate` has changed this model already"):
        model.add_adapter(QPAConfig(**TWO))
    assert not model._hf_peft_config_loaded
    with pytest.raises(ValueError, match="is generated already"):
        generate(trained(folder))


def test_adapter_that_fails_leaves_the_model_as_it_was(folder):
    model = base_of(folder)
    for wrong in ({"target_modules": ["no_such"]}, {"chunk_size": 4, "basis": "gradient", "r": 40}):
        with pytest.raises(ValueError, match="no_such|Rank 40"):
            model.add_adapter(QPAConfig(**(TWO | wrong)))
        assert not model._hf_peft_config_loaded
        assert not hasattr(model, "peft_config")
        assert type(model) is LlamaForCausalLM
        assert not [key for key in model.state_dict() if "lora" in key]


def test_bases_are_found_and_kept(folder, tmp_path):
    settings = {"basis": "gradient", "chunk_size": 4, "r": 4, "n_stages": 2, "rank_pattern": {"q_proj": 8}}
    bare, peft_model = (base_of(folder), get_peft_model(base_of(folder), QPAConfig(**(TWO | settings))))
    bare.add_adapter(QPAConfig(**(TWO | settings)))
    for model in (bare, peft_model.eval()):
        initialize_basis(model, [inputs("llama") | {"labels": inputs("llama")["input_ids"]}])
    for generator in (bare.lora_qpa["default"], peft_model.base_model.lora_qpa["default"]):
        move(generator)
    assert torch.equal(logits(bare, "llama"), logits(peft_model, "llama"))
    bare.save_pretrained(tmp_path)
    other = base_of(folder)
    other.load_adapter(str(tmp_path))
    assert torch.equal(logits(other, "llama"), logits(bare, "llama"))


@pytest.mark.parametrize("portable", [False, True])
def test_bare_model_is_materialized(portable, folder, tmp_path):
    model = trained(folder)
    materialize(model, tmp_path / "plain", portable=portable)
    loaded = PeftModel.from_pretrained(base_of(folder), tmp_path / "plain")
    torch.testing.assert_close(logits(loaded, "llama"), logits(model, "llama"), rtol=0, atol=1e-5 * portable)
    model.save_pretrained(tmp_path / "native")
    materialize(tmp_path / "native", tmp_path / "again", portable=portable)
    a, b = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "again"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_trainer_trains_saves_and_calls_back(folder, tmp_path):
    model = base_of(folder)
    model.add_adapter(QPAConfig(**TWO))
    ids = inputs("llama")["input_ids"]
    data = [{"input_ids": row, "labels": row} for row in ids]
    args = TrainingArguments(
        str(tmp_path / "run"),
        max_steps=2,
        save_steps=1,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
    )
    callbacks = [CircuitMetricsCallback(), MaterializeCallback()]
    trainer = Trainer(model, args, train_dataset=data, callbacks=callbacks)
    trainer.train()
    assert any("qpa/delta_norm" in key or key.startswith("qpa") for log in trainer.state.log_history for key in log)
    expected = logits(model.eval(), "llama")
    other = base_of(folder)
    other.load_adapter(str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(logits(other, "llama"), expected)
    plain = PeftModel.from_pretrained(base_of(folder), tmp_path / "run" / "checkpoint-2" / "plain" / "adapter")
    assert torch.equal(logits(plain, "llama"), expected)


def test_module_with_two_adapted_models_is_asked_which(folder, tmp_path):
    both = nn.ModuleDict({"a": around(folder), "b": trained(folder)})
    with pytest.raises(TypeError, match="Cannot materialize a ModuleDict. Pass a PeftModel, a model with one in it"):
        materialize(both, tmp_path / "plain")
