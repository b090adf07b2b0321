"""Adapters that the bench builds itself, beside PEFT's configurations: cores between factors, matched numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from benchmarks.quality.cores import FORMS, Factors
from benchmarks.quality.task import Task
from qpa_hf import QPAConfig, initialize_basis
from qpa_hf.generator import FrozenBases
from qpa_hf.generator.sources import SOURCES
from qpa_hf.models import bank_of

ADAPTER = "default"


@dataclass(frozen=True)
class OnBases:
    """An adapter of the bench's own.

    Args:
        form: key of `FORMS`.
        n: how many numbers a layer may train, where the form has a choice.
        seed: seed of what is random in it.
        bases: the QPA adapter whose bases it stands on, with its rank; it is not trained.
    """

    form: str
    n: int
    seed: int
    bases: QPAConfig

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration of its bases, and what else it is."""
        return self.bases.to_dict() | {"form": self.form, "n": self.n, "form_seed": self.seed}

    def build(self, task: Task, device: str, exact_bytes: int, seed: int) -> nn.Module:
        """Return the task's base with the untrained adapter, all else frozen."""
        factors = _gradient_bases(task, self.bases, device, exact_bytes, seed)
        rank = self.bases.r
        config = LoraConfig(
            r=rank, lora_alpha=rank, target_modules=self.bases.target_modules, task_type=self.bases.task_type
        )
        model = get_peft_model(task.base().to(device), config).requires_grad_(False)
        rng = torch.Generator().manual_seed(self.seed)
        make, of = FORMS[self.form]
        for layer, bases in zip(_adapted(model), factors, strict=True):
            a, left = of(layer.get_base_layer().weight, bases)
            layer.lora_A[ADAPTER].weight.data.copy_(a)
            layer.lora_B[ADAPTER] = make(left.detach().clone(), rng, self.n).to(device)
        return model


@dataclass(frozen=True)
class FromCircuits:
    """A QPA adapter whose trained numbers, in the circuits' place, start as what circuits have there.

    Args:
        config: the adapter, with `source="free"`.
        circuits: the same with `source="circuit"`.
    """

    config: QPAConfig
    circuits: QPAConfig

    def to_dict(self) -> dict[str, Any]:
        """Return the adapter's configuration, and how it starts."""
        return self.config.to_dict() | {"start_of_free": "circuits"}

    def build(self, task: Task, device: str, exact_bytes: int, seed: int) -> nn.Module:
        """Return the task's base with the untrained adapter."""
        of_circuits = bank_of(get_peft_model(task.base(), self.circuits), ADAPTER).generator  # type: ignore[arg-type]
        model = _on_gradient_bases(task, self.config, device, exact_bytes, seed)
        with torch.no_grad():
            columns = SOURCES["circuit"].columns(of_circuits)
            bank_of(model, ADAPTER).generator.random_features.copy_(columns)
        return model


Own = OnBases | FromCircuits  # what the bench builds itself, beside PEFT's configurations


def _adapted(model: nn.Module) -> Iterator[LoraLayer]:
    return (module for module in model.modules() if isinstance(module, LoraLayer))


def _on_gradient_bases(task: Task, config: QPAConfig, device: str, exact_bytes: int, seed: int) -> nn.Module:
    """Return the task's base with an untrained QPA adapter."""
    model = get_peft_model(task.base().to(device), config).to(device)  # type: ignore[arg-type]
    initialize_basis(model, task.batches(seed), n_examples=task.n_basis, exact_bytes=exact_bytes)
    return model


def _gradient_bases(task: Task, config: QPAConfig, device: str, exact_bytes: int, seed: int) -> list[Factors]:
    """Return (A, U) of every adapted layer, in the order of the model's layers, LoRA's scale put into U."""
    model = _on_gradient_bases(task, config, device, exact_bytes, seed)
    bank = bank_of(model, ADAPTER)
    assert isinstance(bank.pieces, FrozenBases)
    found = list(bank.pieces.views(bank.generator.basis.detach()))
    ordered = []
    for layer in _adapted(model):
        own = next(i for i, (a, _) in enumerate(found) if torch.equal(a, layer.lora_A[ADAPTER].weight))
        ordered.append((found[own][0], found.pop(own)[1] * layer.scaling[ADAPTER]))
    return ordered
