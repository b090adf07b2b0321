"""What LoRA cannot have with QPA, and what to do instead; other libraries' messages in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

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


def first_sentence(error: Exception) -> str:
    """Return the first sentence of another library's message, on one line, without its full stop."""
    return " ".join(str(error).split()).partition(". ")[0]


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


def refuse(config: Any) -> None:
    """Raise if `config` asks for a LoRA variant whose tensors a generator cannot stand in for.

    Raises:
        ValueError: naming the field and what to do instead.
    """
    init = config.init_lora_weights
    if not any(init is allowed or (isinstance(init, str) and init == allowed) for allowed in INITIALISATIONS):
        raise ValueError(
            f"`init_lora_weights`={init!r} is not possible with QPA, which adds a generated part to a frozen "
            "initialisation that leaves the base model as it is. Use True or 'gaussian'."
        )
    for name, reason in VARIANTS.items():
        if getattr(config, name, None):
            raise ValueError(
                f"`{name}` is not possible with QPA, because {reason}. Leave it unset, or train this variant with "
                "PEFT's own LoraConfig."
            )
