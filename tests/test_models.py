"""One answer to how a model's generator is got, whatever was generated and however the model is wrapped."""

import pytest
import torch
from helpers import adapted
from models import build
from peft import LoraConfig, get_peft_model
from torch import nn

from qpa_hf import generate
from qpa_hf.models import bank_of, evaluating, find_bank, unwrapped

SIZES = {"chunk_size": 8, "n_circuits": 2, "circuit_depth": 2}


def qpa():
    """Return a QPA adapter and its generator."""
    model = adapted("llama", target_modules=["q_proj"])
    return model, model.base_model.lora_qpa["default"]


def other_method():
    """Return another method of PEFT's with generated tensors, and their generator."""
    config = LoraConfig(r=4, target_modules=["k_proj"])
    model = generate(get_peft_model(build("llama"), config), **SIZES)
    return model, model.qpa_generator


def network():
    """Return a network without PEFT, and its generator."""
    model = generate(nn.Linear(12, 8), **SIZES)
    return model, model.qpa_generator


def wrapped():
    """Return a compiled model with a QPA adapter, which nothing has called, and the adapter's generator."""
    model, generator = qpa()
    return torch.compile(model), generator


@pytest.mark.parametrize("make", [qpa, other_method, network, wrapped])
def test_the_bank_is_that_of_the_generator(make):
    model, generator = make()
    assert bank_of(model).generator is generator


@pytest.mark.parametrize(
    "make",
    [lambda: qpa()[0], lambda: other_method()[0], lambda: get_peft_model(build("llama"), LoraConfig(r=2))],
    ids=["qpa", "other method", "lora"],
)
def test_an_adapter_without_a_generator_has_no_bank(make):
    model = make()
    assert find_bank(model, "other") is None
    with pytest.raises(ValueError, match="has no generator for an adapter 'other'"):
        bank_of(model, "other")


def test_a_network_with_a_child_named_module_is_no_wrapper():
    net = nn.Module()
    net.module = nn.Linear(12, 8)
    generate(net, **SIZES)
    assert unwrapped(net) is net


def test_each_module_gets_its_mode_back():
    net = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with evaluating(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net] == [True, False]
