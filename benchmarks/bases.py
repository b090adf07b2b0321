"""Base models in the shapes of known ones, with random weights: only their times matter."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig, PretrainedConfig

from benchmarks.measure import SEED, free_bytes

BLOCK = 2**20  # random numbers drawn; weights repeat them, because drawing billions would take minutes
WEIGHT_STD = 0.02
MEMORY_SHARE = 0.8  # of what is free, for the base: adapters, optimizer states and activations need the rest


def _gpt2(**sizes: int) -> PretrainedConfig:
    return GPT2Config(**({"n_layer": sizes["num_hidden_layers"]} if sizes else {}))


def _gemma(**sizes: int) -> PretrainedConfig:
    return Gemma2Config(**sizes)  # its defaults are Gemma-2-2B's


def _llama(**sizes: int) -> PretrainedConfig:
    shape = {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32}
    return LlamaConfig(**(shape | sizes), num_attention_heads=32, num_key_value_heads=8)


def _tiny(**sizes: int) -> PretrainedConfig:
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2Config(n_layer=sizes.get("num_hidden_layers", 2), n_embd=64, n_head=2, vocab_size=1000, **tokens)


class Shape(NamedTuple):
    """The shape of a base model.

    Args:
        config: returns its configuration, with fewer layers if told so.
        dtype: of its weights.
        first: name of its first layer's first normalisation.
    """

    config: Callable[..., PretrainedConfig]
    dtype: torch.dtype
    first: str


SHAPES = {
    "gpt2": Shape(_gpt2, torch.float32, "transformer.h.0.ln_1"),
    "gemma-2-2b": Shape(_gemma, torch.bfloat16, "model.layers.0.input_layernorm"),
    "llama-3-8b": Shape(_llama, torch.bfloat16, "model.layers.0.input_layernorm"),
    "tiny": Shape(_tiny, torch.float32, "transformer.h.0.ln_1"),
}


def _empty(config: PretrainedConfig, dtype: torch.dtype) -> nn.Module:
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.tie_weights()
    return model


def _n_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def n_layers_that_fit(name: str, device: str) -> tuple[int, int]:
    """Return how many layers of a shape fit in the free memory, and how many it has."""
    shape = SHAPES[name]
    n_layers = shape.config().num_hidden_layers
    one, two = (_n_bytes(_empty(shape.config(num_hidden_layers=n), shape.dtype)) for n in (1, 2))
    return min(n_layers, 1 + int((MEMORY_SHARE * free_bytes(device) - one) // (two - one))), n_layers


def build(name: str, n_layers: int, device: str) -> nn.Module:
    """Return a frozen model of a shape, in training mode.

    Raises:
        MemoryError: if not even one layer fits.
    """
    if n_layers < 1:
        raise MemoryError(f"Not one layer of {name} fits in the free memory. Choose another of `--shapes`.")
    shape = SHAPES[name]
    model = _empty(shape.config(num_hidden_layers=n_layers), shape.dtype)
    block = torch.randn(BLOCK, generator=torch.Generator().manual_seed(SEED)) * WEIGHT_STD
    block = block.to(device, shape.dtype)
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(_weights(parameter, block), requires_grad=False)
                module._parameters[key] = made[id(parameter)]
    return model.to(device).train()


def _weights(parameter: nn.Parameter, block: Tensor) -> Tensor:
    values = torch.empty(parameter.numel(), dtype=parameter.dtype, device=block.device)
    for part in values.split(BLOCK):
        part.copy_(block[: part.numel()])
    return values.view(parameter.shape) if parameter.dim() > 1 else torch.ones_like(values)


def sharing_copy(model: nn.Module) -> Any:
    """Return a copy with modules of its own around the same weights: several adapters, one base in memory."""
    return copy.deepcopy(model, {id(x): x for x in (*model.parameters(), *model.buffers())})
