"""Gradient bases that cannot be: one clear sentence each, before anything is lost."""

from pathlib import Path

import pytest
import torch
from gradient_bases import SETTINGS, square, uninitialized
from models import build, inputs, output
from peft import LoraConfig, get_peft_model

from qpa_hf import QPAConfig, initialize_basis

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]


REFUSED_SETTINGS = {
    "authors' start": ({"start": "authors"}, "zero at the start"),
    "bases from a seed": ({"save_init": False}, "come from data"),
    "biases": ({"lora_bias": True}, "a bias has no basis"),
    "unknown basis": ({"basis": "hessian"}, "Choose one of 'kaiming', 'gradient'"),
}


@pytest.mark.parametrize("case", REFUSED_SETTINGS)
def test_impossible_settings_are_refused(case):
    settings, message = REFUSED_SETTINGS[case]
    with pytest.raises(ValueError, match=message):
        QPAConfig(**(SETTINGS | settings))


REFUSED_LAYERS = {
    "embedding": ("untied", {"target_modules": ["wte"]}, "wte is no linear layer"),
    "convolution": ("mlp", {"target_modules": ["conv"]}, "conv is no linear layer"),
    "rank too large": ("llama", {"target_modules": ["q_proj"], "r": 17}, "Rank 17 is more than"),
}


@pytest.mark.parametrize("case", REFUSED_LAYERS)
def test_layers_without_such_bases_are_refused_by_name(case):
    name, settings, message = REFUSED_LAYERS[case]
    with pytest.raises(ValueError, match=message):
        uninitialized(name, **settings)


def test_multihead_attention_is_refused_by_name():
    base = torch.nn.TransformerEncoderLayer(8, 2, 8)
    model = get_peft_model(base, QPAConfig(basis="gradient", r=2, target_modules=["self_attn"]))
    with pytest.raises(ValueError, match="self_attn is a MultiheadAttention"):
        initialize_basis(model, [{"src": torch.randn(3, 2, 8)}], loss=lambda model, batch: model(**batch).sum())


def test_zero_3_is_refused_before_anything_is_read():
    model = uninitialized("llama", target_modules=["q_proj"])
    next(model.parameters()).ds_id = 0  # DeepSpeed's mark of a parameter that ZeRO-3 keeps elsewhere
    with pytest.raises(ValueError, match="Find them without it, `save_pretrained`, and load that adapter"):
        initialize_basis(model, iter(()))


def infinite(model, batch):
    return square(model, batch) * torch.inf


@torch.no_grad()
def without_gradient(model, batch):
    return square(model, batch).requires_grad_()


REFUSED_CALLS = {
    "no batches": (lambda model: initialize_basis(model, []), ValueError, "no batches"),
    "a directory for the cache": (
        lambda model: initialize_basis(model, [], cache=Path.cwd()),
        IsADirectoryError,
        "is a directory. Name a file in it",
    ),
    "no labels": (lambda model: initialize_basis(model, [inputs("llama")]), ValueError, "labels"),
    "not finite": (lambda model: initialize_basis(model, [inputs("llama")], loss=infinite), ValueError, "not finite"),
    "zero": (
        lambda model: initialize_basis(model, [inputs("llama")], loss=lambda *given: 0 * square(*given)),
        ValueError,
        "q_proj is zero",
    ),
    "without a gradient": (
        lambda model: initialize_basis(model, [inputs("llama")], loss=without_gradient),
        ValueError,
        "No gradient came to model.layers.0.self_attn.q_proj",
    ),
    "a number": (
        lambda model: initialize_basis(model, [inputs("llama")], loss=lambda *given: square(*given).item()),
        TypeError,
        "The loss is a float without a graph",
    ),
    "cut off its graph": (
        lambda model: initialize_basis(model, [inputs("llama")], loss=lambda *given: square(*given).detach()),
        TypeError,
        "The loss is a Tensor without a graph",
    ),
    "twice": (lambda model: initialize_basis(model, [inputs("llama")], loss=square), ValueError, "already"),
    "rows without names": (
        lambda model: initialize_basis(model, [(1, 2)]),
        TypeError,
        "tuple without tensors by name",
    ),
    "rows without tensors": (
        lambda model: initialize_basis(model, [{"a": torch.tensor(1)}]),
        TypeError,
        "without tensors by name",
    ),
    "a bare model": (lambda model: initialize_basis(build("llama"), []), TypeError, "get_peft_model"),
    "no bases": (lambda model: output(model, "llama"), RuntimeError, "initialize_basis"),
}


@pytest.mark.parametrize("case", REFUSED_CALLS)
def test_wrong_calls_get_one_clear_sentence(case):
    call, error, message = REFUSED_CALLS[case]
    model = uninitialized("llama", target_modules=["q_proj"])
    if case == "twice":
        initialize_basis(model, [inputs("llama")], loss=square)
    with pytest.raises(error, match=message):
        call(model)


def test_plain_lora_has_no_bases_to_find():
    model = get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="basis='gradient'"):
        initialize_basis(model, [])
