"""What LoRA cannot have with QPA, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers.pytorch_utils import Conv1D

from qpa_hf.messages import shown

INITIALISATIONS = (True, "gaussian")

# Fields of LoraConfig that switch on a variant; some are absent from older versions of PEFT.
VARIANTS = {
    "layer_replication": "it stacks copies of base layers",
    "alora_invocation_tokens": "aLoRA switches its adapter on in the middle of a sequence",
    "arrow_config": "Arrow routes between trained adapters and trains none",
    "use_bdlora": "BD-LoRA's factors are block-diagonal",
    "velora_config": "VeLoRA replaces the backward pass of A",
    "kasa_config": "KaSA truncates the base weights",
    "monteclora_config": "MonteCLoRA samples its weights",
    "megatron_config": "Megatron shards the adapter's tensors over GPUs",
}


@contextmanager
def naming_layers(model: nn.Module, hint: str = "") -> Iterator[None]:
    """Name the layers that a model has, where PEFT says only that it has none of those asked for; then the hint."""
    try:
        yield
    except ValueError as error:
        kinds = (nn.Linear, Conv1D, nn.Embedding, nn.Conv2d)
        found = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, kinds)})
        sentence, is_unknown, _ = str(error).partition(" Please check the target modules and try again.")
        if not is_unknown or not found or any(repr(name) in sentence for name in found):
            raise
        raise ValueError(f"{sentence} Choose from its {', '.join(found)}.{hint}") from error


def _refuse_lora_fa(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Raise before PEFT's LoRA-FA takes a generator's Parameters, two by two, for factors A and B."""
    if type(optimizer).__name__ != "LoraFAOptimizer":
        return
    for group in optimizer.param_groups:
        if any(".lora_qpa." in name for name in group["names"]):
            raise ValueError(
                "LoRA-FA is not possible with QPA, whose generator has no factors A and B to train one of. Use "
                "torch.optim.AdamW, or train with PEFT's own LoraConfig."
            )


register_optimizer_step_pre_hook(_refuse_lora_fa)


def refuse(config: Any) -> None:
    """Raise if `config` asks for a LoRA variant whose tensors a generator cannot stand in for.

    Raises:
        ValueError: naming the field and what to do instead.
    """
    init = config.init_lora_weights
    if not any(init is allowed or (isinstance(init, str) and init == allowed) for allowed in INITIALISATIONS):
        raise ValueError(
            f"`init_lora_weights`={shown(init)} is not possible with QPA, which adds a generated part to a frozen "
            "initialisation that leaves the base model as it is. Use True or 'gaussian'."
        )
    for name, reason in VARIANTS.items():
        value = getattr(config, name, None)
        if value or isinstance(value, dict):  # of which PEFT makes a configuration with its defaults
            raise ValueError(
                f"`{name}` is not possible with QPA, because {reason}. Leave it unset, or train this variant with "
                "PEFT's own LoraConfig."
            )


def refuse_plain_tensors(model: Any, keys: Any) -> None:
    """Raise where tensors would be loaded that are generated here, which PEFT would pass over in silence.

    Args:
        model: the QPAModel that has loaded a state dict.
        keys: the names that were missing and unexpected then.

    Raises:
        ValueError: naming the first such tensor.
    """
    generated = {key for name in model.banks for key, *_ in model.peft_config[name].layout}
    # Versions of PEFT before 0.21 have put the adapter's name in.
    named = re.compile(rf"(\.lora_\w+)\.(?:{'|'.join(map(re.escape, model.banks))})(?=\.|$)")
    if plain := [key for key in keys.unexpected_keys if named.sub(r"\1", key) in generated]:
        raise ValueError(
            f"{plain[0]} is a plain LoRA's tensor, and would have no effect here, where it is generated. Load a plain "
            "adapter onto the base model, with `PeftModel.from_pretrained`."
        )


def check_tokens(indices: Any, model: nn.Module) -> None:
    """Refuse a token to train that no embedding of the model has.

    Args:
        indices: of tokens, or such by the embedding's name; None or nothing if none is trained.
        model: the base model.

    Raises:
        ValueError: naming the token.
    """
    for name, tokens in (indices if isinstance(indices, dict) else {"": indices or ()}).items():
        layers = [m for path, m in model.named_modules() if isinstance(m, nn.Embedding) and path.endswith(name)]
        most = max((layer.num_embeddings for layer in layers), default=None)
        if most is not None and tokens and not 0 <= min(tokens) <= max(tokens) < most:
            raise ValueError(
                f"`trainable_token_indices`={shown(indices)} is not allowed. Set it to tokens from 0 to {most - 1}, "
                "which the embedding has."
            )
