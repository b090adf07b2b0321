"""The adapters that each client is given: plain LoRA, and QPA on both kinds of bases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from benchmarks.clients.figures import trained
from qpa_hf import QPAConfig, initialize_basis, materialize

COMMON: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
SMALL: dict[str, Any] = {"chunk_size": 32, "n_circuits": 2, "circuit_depth": 2}


@dataclass(frozen=True)
class Arm:
    """One kind of adapter.

    Args:
        name: its column in the table.
        kind: class of its configuration.
        settings: those that it has beside `COMMON`.
    """

    name: str
    kind: type[LoraConfig]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_gradient_bases(self) -> bool:
        """Whether its frozen factors have to be found from gradients."""
        return self.settings.get("basis") == "gradient"

    def config(self, **settings: Any) -> LoraConfig:
        """Return its configuration."""
        return self.kind(**{**COMMON, **self.settings, **settings})

    def adapted(self, base: PreTrainedModel, batches: Iterable[Any] = (), loss: Any = None, **settings: Any) -> Any:
        """Return a `PeftModel` around a base, its bases found if it has any."""
        torch.manual_seed(1)
        model = get_peft_model(base, self.config(**settings))
        if self.has_gradient_bases:
            initialize_basis(model, list(batches), loss=loss)
        return model

    def save_plain(self, model: nn.Module, folder: Path, portable: bool = False) -> Path:
        """Write a `PeftModel` as plain LoRA."""
        if isinstance(model.peft_config["default"], QPAConfig):
            return materialize(model, folder, portable=portable)
        model.save_pretrained(folder)
        return folder


ARMS = (
    Arm("LoRA", LoraConfig),
    Arm("QPA", QPAConfig, SMALL),
    Arm("QPA, gradient bases", QPAConfig, {"basis": "gradient", "chunk_size": 8}),
)


def move(model: PeftModel | nn.Module, by: float = 0.3, seed: int = 5) -> None:
    """Add random numbers to all that an adapter trains, as a long training would."""
    rng = torch.Generator().manual_seed(seed)
    names = trained(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.add_(by * torch.randn(parameter.shape, generator=rng))
