"""Norms of the weight changes that a generator generates, without ever building them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qpa_hf.generator import Generator
from qpa_hf.models import layer_of
from qpa_hf.tuners.qpa.slots import PREFIX, bank_for, own_slots, slots_of

FACTORS = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "A",
    ".lora_embedding_B": "B",
}


def delta_norms(model: Any, generator: Generator, adapter_name: str) -> dict[str, Tensor]:
    """Return the Frobenius norm of each adapted layer's scaled B A, by the layer's name, as tensors without a graph.

    With DoRA this is the part that LoRA adds before the magnitudes are applied.

    Args:
        model: the `PeftModel`, or a model into which the adapter was injected.
        generator: the adapter's, with whole (not sharded) parameters.
        adapter_name: the adapter's name.
    """
    config = model.peft_config[adapter_name]
    slots = slots_of(config.layout)
    with torch.no_grad():
        values = bank_for(generator, config, slots).values()
        tensors = {slot.key: value for slot, value in zip(own_slots(slots), values, strict=True)}
        layers: dict[str, dict[str, Tensor]] = {}
        for slot in slots:
            for suffix, factor in FACTORS.items():
                if slot.key.endswith(suffix):
                    tensor = tensors[slot.tied_to].t() if slot.tied_to else tensors[slot.key]
                    layers.setdefault(slot.key.removesuffix(suffix), {})[factor] = tensor
        return {name.removeprefix(PREFIX): _norm(model, name, adapter_name, **ab) for name, ab in layers.items()}


def _norm(model: Any, name: str, adapter_name: str, A: Tensor, B: Tensor) -> Tensor:
    layer = layer_of(model, name)
    A, B = A.flatten(1), B.flatten(1)  # (n_parts * rank, in) and (out, rank): a convolution's kernel counts as inputs
    n_experts = getattr(layer, "num_experts", 1)
    if n_experts > 1:  # PEFT keeps the experts outermost in A, innermost in B
        B = B.unflatten(1, (-1, n_experts)).permute(2, 0, 1)  # (experts, out, rank)
    else:
        n_groups = A.shape[0] // B.shape[1]  # of a grouped convolution; each group has a share of A's rows
        B = B.unflatten(0, (n_groups, -1))  # (groups, out / groups, rank)
    A = A.unflatten(0, (B.shape[0], -1))  # (experts or groups, rank, in)
    # |BA|^2 is the sum of all entries of (B^T B) * (A A^T), which are only (rank, rank).
    squared = ((B.mT @ B) * (A @ A.mT)).sum()
    return squared.clamp_min(0).sqrt() * layer.scaling[adapter_name]
