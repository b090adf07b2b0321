"""The feed-forward adapter as a PEFT method, plain, generated, and folded into LoRA where it has no nonlinearity."""

import json

import pytest
import torch
from helpers import logits
from models import build, output
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from trained import losses, trainer
from transformers.pytorch_utils import Conv1D

from qpa_hf import BottleneckConfig, generate, load_generated, materialize
from qpa_hf.networks.counts import method_count

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
LM = {"task_type": "CAUSAL_LM"}
CASES = {
    "linear": ("llama", {"target_modules": ["q_proj", "down_proj"], **LM}),
    "no bias": ("llama", {"target_modules": ["q_proj"], "use_bias": False, **LM}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj"], **LM}),
    "tied head": ("gpt2", {"target_modules": ["lm_head"], **LM}),
    "modules_to_save": ("bert", {"target_modules": ["query"], "modules_to_save": ["classifier"]}),
}
each = pytest.mark.parametrize("case", CASES)


def make(case, activation="gelu", generated=False):
    name, settings = CASES[case]
    model = get_peft_model(build(name), BottleneckConfig(bottleneck_size=4, activation=activation, **settings)).eval()
    return name, generate(model, chunk_size=8, n_circuits=2, circuit_depth=2) if generated else model


def trained(case, **kwargs):
    name, model = make(case, **kwargs)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
    return name, model


@each
@pytest.mark.parametrize("generated", [False, True])
def test_nothing_changes_at_step_0(case, generated):
    name, model = make(case, generated=generated)
    assert torch.equal(logits(model, name), logits(build(name), name))


@each
@pytest.mark.parametrize("generated", [False, True])
def test_every_trained_number_has_a_gradient(case, generated):
    name, model = trained(case, generated=generated)
    output(model, name).square().sum().backward()
    for parameter in model.parameters():
        assert not parameter.requires_grad or parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("layer", [nn.Linear(6, 9), Conv1D(9, 6)], ids=["Linear", "Conv1D"])
def test_layer_gets_the_bottlenecks_output(layer):
    model = get_peft_model(nn.Sequential(layer), BottleneckConfig(bottleneck_size=3, target_modules=["0"]))
    adapted = model.base_model.model[0]
    down, up = adapted.bottleneck_down["default"], adapted.bottleneck_up["default"]
    with torch.no_grad():
        up.weight.normal_()
        up.bias.normal_()
        x = torch.randn(5, 6)
        expected = layer(x + torch.relu(x @ down.weight.T + down.bias) @ up.weight.T + up.bias)
        torch.testing.assert_close(model(x), expected)


@each
def test_materialized_generator_is_a_plain_adapter(case, tmp_path):
    name, model = trained(case, generated=True)
    materialize(model, tmp_path)
    assert not [key for key in load_file(tmp_path / "adapter_model.safetensors") if "generator" in key]
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "BOTTLENECK"
    loaded = PeftModel.from_pretrained(build(name), tmp_path, adapter_name="b")
    assert torch.equal(logits(loaded, name), logits(model, name))


@each
def test_generator_is_saved_and_loaded(case, tmp_path):
    name, model = trained(case, generated=True)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_generated(build(name), tmp_path), name), logits(model, name))


@each
@pytest.mark.parametrize("generated", [False, True])
def test_without_a_nonlinearity_it_is_a_lora(case, generated, tmp_path):
    name, model = trained(case, activation="none", generated=generated)
    materialize(model, tmp_path)
    lora = PeftModel.from_pretrained(build(name).double(), tmp_path, autocast_adapter_dtype=False)
    assert lora.peft_config["default"].peft_type == "LORA"
    expected = logits(model, name)
    torch.testing.assert_close(logits(lora, name).float(), expected, rtol=1e-5, atol=1e-6)


def test_fold_is_exact_to_the_last_digits(tmp_path):
    base = nn.Sequential(nn.Linear(6, 9)).double()
    config = BottleneckConfig(bottleneck_size=3, activation="none", target_modules=["0"])
    model = get_peft_model(base, config, autocast_adapter_dtype=False)
    up = model.base_model.model[0].bottleneck_up["default"]
    x = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        up.weight.normal_()
        up.bias.normal_()
        expected = model(x)
    materialize(model, tmp_path)
    lora = PeftModel.from_pretrained(model.unload(), tmp_path, autocast_adapter_dtype=False)
    torch.testing.assert_close(lora(x), expected, rtol=1e-12, atol=1e-13)


def test_adapters_are_switched_and_disabled():
    name, model = trained("linear")
    model.add_adapter("b", BottleneckConfig(bottleneck_size=2, target_modules=["q_proj"], **LM))
    first = logits(model, name)
    model.set_adapter("b")
    assert torch.equal(logits(model, name), logits(build(name), name))
    model.set_adapter("default")
    assert torch.equal(logits(model, name), first)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), logits(build(name), name))
    assert torch.equal(logits(model.unload(), name), logits(build(name), name))


@pytest.mark.parametrize("generated", [False, True])
def test_training_lowers_the_loss(generated, tmp_path):
    _, model = make("tied head", generated=generated)
    run = trainer(tmp_path, model=model.train(), max_steps=30, learning_rate=0.1)
    run.train()
    assert losses(run)[-1] < losses(run)[0] - 0.1


def test_trained_numbers_are_those_of_the_formula():
    _, model = make("linear")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 2 * (method_count("feed-forward", 16, 16, 4) + method_count("feed-forward", 24, 16, 4))


BAD = {
    "seed": (lambda: BottleneckConfig(init_seed=-1), ValueError, "`init_seed`=-1 is not allowed"),
    "bias": (lambda: BottleneckConfig(use_bias="no"), TypeError, "`use_bias`='no' is not a truth value"),
    "activation": (lambda: BottleneckConfig(activation="swish"), ValueError, "`activation`='swish' is not known"),
    "layer": (
        lambda: get_peft_model(build("mlp"), BottleneckConfig(target_modules=["conv"])),
        TypeError,
        "conv is a Conv2d, and a bottleneck stands before linear layers that",
    ),
    "a layer that is not called": (
        lambda: get_peft_model(nn.TransformerEncoderLayer(8, 2), BottleneckConfig(target_modules=["out_proj"])),
        TypeError,
        "self_attn.out_proj is a NonDynamically.*before linear layers that are called",
    ),
    "an adapter for each row": (
        lambda: logits(make("linear")[1], "llama", adapter_names=["default", "b"]),
        ValueError,
        r"`adapter_names`=\['default', 'b'\] is not possible, because a feed-forward adapter is the same for",
    ),
    "merge": (lambda: make("linear")[1].merge_and_unload(), ValueError, "cannot be merged into a weight"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()
