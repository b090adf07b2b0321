"""A portable adapter changes the weights alike for every reader, whichever of LoRA's settings it reads."""

import json
import sys

import pytest
import torch
from helpers import adapted, logits
from models import build
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from qpa_hf import generate, materialize
from qpa_hf.hub import push

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
LM = {"task_type": "CAUSAL_LM"}
TWO = {"target_modules": ["q_proj", "down_proj"], **LM}
WIDER = {"rank_pattern": {"q_proj": 8}}
EXACT = {  # every scale a power of two
    "default": ("llama", TWO),
    "rslora": ("llama", TWO | {"use_rslora": True}),
    "alpha pattern": ("llama", TWO | {"alpha_pattern": {"q_proj": 2}}),
    "rank pattern": ("llama", TWO | WIDER),
    "both patterns": ("llama", TWO | WIDER | {"alpha_pattern": {"layers.0.mlp.down_proj": 16}}),
    "gradient": ("llama", TWO | WIDER | {"basis": "gradient", "lora_alpha": None, "chunk_size": 4}),
    "gradient, alpha": ("llama", TWO | WIDER | {"basis": "gradient", "chunk_size": 4}),
    "gradient, stages": (
        "llama",
        TWO | WIDER | {"basis": "gradient", "lora_alpha": None, "chunk_size": 4, "n_stages": 2},
    ),
    "one layer": ("llama", TWO | WIDER | {"layers_to_transform": [1]}),
    "expression": ("llama", {"target_modules": r".*\.1\..*(q_proj|down_proj)", **LM} | WIDER),
    "conv1d": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_rslora": True, **LM}),
    "embedding": ("gpt2", {"target_modules": ["wte", "c_fc"], "rank_pattern": {"wte": 2}, **LM}),
    "convolution": ("mlp", {"target_modules": ["conv", "hidden"], "rank_pattern": {"conv": 2}}),
}
ROUNDED = {
    "odd rank": ("llama", TWO | {"rank_pattern": {"q_proj": 3}}),
    "odd alpha": ("llama", TWO | {"lora_alpha": 5, "use_rslora": True, "r": 6}),
}
CASES = EXACT | ROUNDED


def changes(model):
    """Return what PEFT adds to each layer's weight."""
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))
    return {name: layer.get_delta_weight("default").detach() for name, layer in layers}


def products(folder, divide_by):
    """Return B A of each layer as a reader has it that knows one alpha and no pattern."""
    settings = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {}
    for key, a in tensors.items():
        for a_name, b_name in ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B")):
            if key.endswith(a_name):
                name, b = key.removesuffix(a_name), tensors[key.removesuffix(a_name) + b_name]
                rank = settings["r"] if divide_by == "setting" else len(a)
                value = (b.flatten(1) @ a.flatten(1)).view(len(b), *a.shape[1:]) * (settings["lora_alpha"] / rank)
                found[name] = value
    return found


@pytest.mark.parametrize("divide_by", ["setting", "tensor"])
@pytest.mark.parametrize("case", CASES)
def test_reader_that_knows_one_alpha_has_pefts_weights(case, divide_by, tmp_path):
    name, settings = CASES[case]
    model = adapted(name, **settings)
    materialize(model, tmp_path / "a", portable=True)
    found, expected = products(tmp_path / "a", divide_by), changes(model)
    assert found.keys() == expected.keys()
    for layer, value in expected.items():
        is_turned = found[layer].shape != value.shape or getattr(model.get_submodule(layer), "fan_in_fan_out", False)
        torch.testing.assert_close(found[layer].T if is_turned else found[layer], value, rtol=1e-5, atol=1e-6)
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert not settings["rank_pattern"]
    assert not settings["alpha_pattern"]
    assert not settings["use_rslora"]


@pytest.mark.parametrize("case", CASES)
def test_peft_answers_as_before(case, tmp_path):
    name, settings = CASES[case]
    model = adapted(name, **settings)
    materialize(model, tmp_path / "a", portable=True)
    loaded = PeftModel.from_pretrained(build(name), tmp_path / "a")
    torch.testing.assert_close(logits(loaded, name), logits(model, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", EXACT)
def test_scales_that_are_powers_of_two_are_folded_exactly(case, tmp_path):
    name, settings = EXACT[case]
    model = adapted(name, **settings)
    materialize(model, tmp_path / "as it is")
    materialize(model, tmp_path / "portable", portable=True)
    before, after = (load_file(tmp_path / kind / "adapter_model.safetensors") for kind in ("as it is", "portable"))
    for key, value in before.items():
        kept = after[key][tuple(slice(n) for n in value.shape)]
        ratios = (kept / value)[value != 0].unique()
        assert len(ratios) == 1, key
        assert torch.log2(ratios).frac() == 0
        assert after[key].count_nonzero() == value.count_nonzero()  # padded with zeros


def test_native_folder_and_model_give_the_same_files(tmp_path):
    name, settings = CASES["odd rank"]
    model = adapted(name, **settings)
    model.save_pretrained(tmp_path / "native")
    for source, target in ((model, "a"), (tmp_path / "native", "b")):
        materialize(source, tmp_path / target, portable=True)
    a, b = ((tmp_path / folder / "adapter_model.safetensors").read_bytes() for folder in "ab")
    assert a == b
    assert "every scale is part of `lora_B`" in (tmp_path / "a" / "README.md").read_text()


def test_generated_lora_is_made_portable_too(tmp_path):
    model = get_peft_model(build("llama"), LoraConfig(r=4, lora_alpha=32, use_rslora=True, **TWO))
    generate(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    materialize(model, tmp_path / "a", portable=True)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "a")
    torch.testing.assert_close(logits(loaded, "llama"), logits(model, "llama"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("use_rslora", "alpha", "own"), [(False, 4, 8), (True, 2, 8**0.5)])
def test_gradient_bases_invent_no_alpha_for_a_layer_with_its_own_rank(use_rslora, alpha, own):
    settings = TWO | WIDER | {"basis": "gradient", "lora_alpha": None, "chunk_size": 4, "use_rslora": use_rslora}
    model = adapted("llama", **settings)
    config = model.peft_config["default"]
    assert config.lora_alpha == alpha
    assert not config.alpha_pattern
    same = adapted("llama", **(settings | {"lora_alpha": alpha, "alpha_pattern": {"q_proj": own}}))
    found, expected = changes(model), changes(same)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_bases_of_a_checkpoint_keep_their_scale(tmp_path):
    name, settings = CASES["gradient"]
    model = adapted(name, **settings)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(name), tmp_path)
    assert torch.equal(logits(loaded, name), logits(model, name))


def refused(**settings):
    return lambda: adapted("llama", **(TWO | settings))


def generated(config):
    model = get_peft_model(build("llama"), config)
    generate(model)
    return model


REFUSED = {
    "use_dora": refused(use_dora=True),
    "modules_to_save": refused(modules_to_save=["lm_head"]),
    "lora_bias": refused(lora_bias=True),
    "trainable_token_indices": refused(trainable_token_indices=[1, 2]),
    "target_parameters": lambda: adapted("mixture", target_modules=[], target_parameters=["experts.weights"]),
    "lora_only": lambda: generated(LoraConfig(bias="lora_only", **TWO)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_readers_of_lora_do_not_know_is_refused(case, tmp_path):
    with pytest.raises(ValueError, match=f"no portable form, because with .*{case}.* Merge it into its base model"):
        materialize(REFUSED[case](), tmp_path / "a", portable=True)
    assert not list(tmp_path.iterdir())


def test_settings_that_differ_when_read_back_are_an_error(tmp_path, monkeypatch):
    save = LoraConfig.save_pretrained

    def forget(self, folder):
        self.lora_alpha *= 2
        save(self, folder)
        self.lora_alpha //= 2

    monkeypatch.setattr(LoraConfig, "save_pretrained", forget)
    with pytest.raises(RuntimeError, match="differs when read back"):
        materialize(adapted("llama", **TWO), tmp_path / "a", portable=True)
    assert not list(tmp_path.iterdir())


def test_arguments_that_exclude_each_other_are_named(tmp_path):
    model = adapted("llama", **TWO)
    with pytest.raises(TypeError, match="Pass the directory to write"):
        materialize(model, portable=True)
    with pytest.raises(TypeError, match=r"`portable`='yes' is not allowed\. Pass True or False"):
        materialize(model, tmp_path / "a", portable="yes")
    with pytest.raises(ValueError, match="leave out form='native'"):
        push(model, "me/it", form="native", portable=True)
    materialize(model, tmp_path / "a")
    with pytest.raises(ValueError, match="Pass the native one to have it made portable"):
        push(tmp_path / "a", "me/it", portable=True)


def test_command_writes_the_portable_form(tmp_path, monkeypatch, capsys):
    from qpa_hf_cli import main

    adapted("llama", **(TWO | {"use_rslora": True})).save_pretrained(tmp_path / "native")
    command = ["qpa", "materialize", str(tmp_path / "native"), str(tmp_path / "a"), "--portable", "--json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (settings["lora_alpha"], settings["r"], settings["use_rslora"]) == (4, 4, False)
