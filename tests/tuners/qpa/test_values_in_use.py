"""A model's answers come from the numbers that its generator has, however those were written."""

import copy

import pytest
import torch
from helpers import adapted, disturb, logits
from models import build, inputs
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from qpa_hf import generate

TEXT = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def generated():
    """Return a network whose numbers are generated."""
    made = generate(build("mlp"), ["hidden", "head"], chunk_size=64, n_circuits=2, circuit_depth=2)
    _disturb(made, 1)
    return made


MODELS = {
    "circuits": lambda: ("llama", adapted("llama", **TEXT)),
    "shots": lambda: ("llama", adapted("llama", **TEXT, shots=50)),
    "direct": lambda: ("llama", adapted("llama", **TEXT, source="direct")),
    "gradient": lambda: ("llama", adapted("llama", **TEXT, basis="gradient", chunk_size=4)),
    "embedding": lambda: ("gpt2", adapted("gpt2", target_modules=["wte"])),
    "two parts": lambda: ("t5", adapted("t5", target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM")),
    "generated": lambda: ("mlp", generated()),
}


def _trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def _disturb(model, seed):
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in _trained(model):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))


def stored_and_restored(model, ask):
    """As diffusers' EMAModel does: the shadow's numbers for a while, then those of before."""
    kept = [p.detach().clone() for p in _trained(model)]
    seen = ask(model)
    for parameter in _trained(model):
        parameter.data.copy_(parameter.data * 0.9)
    there = ask(model)
    for parameter, values in zip(_trained(model), kept, strict=True):
        parameter.data.copy_(values)
    assert torch.equal(ask(model), seen)
    for parameter in _trained(model):
        parameter.data.copy_(parameter.data * 0.9)
    return there


def averaged(model, ask):
    """As torch's AveragedModel does, of a copy."""
    shadow = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for seed in (1, 2, 3):
        _disturb(model, seed)
        shadow.update_parameters(model)
        there = ask(shadow.module)
    for parameter, values in zip(_trained(model), _trained(shadow.module), strict=True):
        parameter.data = values.data
    return there


def shadowed(model, ask):
    """As timm's ModelEmaV2 does: a copy's state dict is written in place."""
    shadow = copy.deepcopy(model)
    ask(shadow)
    _disturb(model, 1)
    with torch.no_grad():
        for mine, theirs in zip(shadow.state_dict().values(), model.state_dict().values(), strict=True):
            mine.copy_(0.5 * mine + 0.5 * theirs if mine.is_floating_point() else theirs)
    for parameter, values in zip(_trained(model), _trained(shadow), strict=True):
        parameter.data.copy_(values)
    return ask(shadow)


@pytest.mark.parametrize("write", [stored_and_restored, averaged, shadowed])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_helpers_that_average_weights_are_seen(make, write):
    name, model = make()
    before = logits(model, name)
    there = write(model, lambda some: logits(some, name))
    expected = logits(copy.deepcopy(model), name)
    assert torch.equal(logits(model, name), expected)
    assert torch.equal(there, expected)
    assert not torch.equal(before, expected)


def test_a_part_that_is_called_by_itself_sees_what_was_written():
    _, model = MODELS["two parts"]()
    encoder = model.get_base_model().get_encoder()
    ids = inputs("t5")["input_ids"]
    with torch.no_grad():
        before = encoder(ids).last_hidden_state
        for parameter in _trained(model):
            parameter.data.mul_(0.5)
        after = encoder(ids).last_hidden_state
        assert torch.equal(after, copy.deepcopy(model).get_base_model().get_encoder()(ids).last_hidden_state)
    assert not torch.equal(after, before)


def test_the_generator_runs_once_while_many_tokens_are_written(monkeypatch):
    model = adapted("llama", **TEXT)
    generator = type(model.base_model.lora_qpa["default"])
    calls, forward = [], generator.forward
    monkeypatch.setattr(generator, "forward", lambda self, *args: calls.append(1) or forward(self, *args))
    ids = inputs("llama")["input_ids"]
    model.generate(input_ids=ids, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert len(calls) == 1
    logits(model, "llama")
    assert len(calls) == 1
    disturb(model)
    logits(model, "llama")
    assert len(calls) == 2
