"""What a model has in it: the model under its wrappers, the bank of an adapter, each module's mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from torch import nn

from qpa_hf.generator import Bank
from qpa_hf.reading import BankHolder, attachment_of


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel and torch.compile's wrappers.

    Of a module that has one adapted model among its parts, as a SentenceTransformer has, that one.
    """
    while not is_adapted(model):
        inner = _inner(model)
        if not isinstance(inner, nn.Module):
            return _part(model)
        model = inner
    return model


def is_adapted(model: nn.Module) -> bool:
    """Whether a module has adapters or generated tensors as a whole: a `PeftModel`, or another that was changed."""
    return isinstance(model, (PeftModel, BankHolder)) or attachment_of(model) is not None


def _part(model: nn.Module) -> nn.Module:
    found = [part for part in model.modules() if is_adapted(part)]
    outer = found[:1]
    for part in found[1:]:  # parents come before their parts
        if not any(part is inner for whole in outer for inner in whole.modules()):
            outer.append(part)
    return outer[0] if len(outer) == 1 else model


def _inner(model: nn.Module) -> Any:
    return model._modules.get("module") or model._modules.get("_orig_mod")  # DistributedDataParallel, torch.compile


def layer_of(model: nn.Module, name: str) -> Any:
    """Return a layer by its name in a `PeftModel`; in a model into which adapters were injected it is shorter."""
    return model.get_submodule(name if isinstance(model, PeftModel) else name.removeprefix("base_model.model."))


def active_adapters_of(model: Any) -> list[str]:
    """Return the names of a model's active adapters, which transformers' models return and `PeftModel`s have."""
    if not getattr(model, "peft_config", None):
        return []
    found = model.active_adapters
    return list(found() if callable(found) else found)


def find_bank(model: nn.Module, adapter_name: str = "default") -> Bank | None:
    """Return the bank that an adapter's tensors are read from, None if nothing generates them.

    Args:
        model: a PEFT model or any module that `generate` has changed, wrapped or not.
        adapter_name: name of the adapter; a module without PEFT has only one bank, whatever the name.
    """
    inner = unwrapped(model)
    attachment = attachment_of(inner)
    if attachment is not None:
        return attachment.bank if attachment.adapter_name in (None, adapter_name) else None
    holder = inner.base_model if isinstance(inner, PeftModel) else inner
    return holder.banks.get(adapter_name) if isinstance(holder, BankHolder) else None


def bank_of(model: nn.Module, adapter_name: str = "default") -> Bank:
    """Return the bank that an adapter's tensors are read from.

    Args: see `find_bank`.

    Raises:
        ValueError: if nothing generates the adapter.
    """
    bank = find_bank(model, adapter_name)
    if bank is None:
        raise ValueError(
            f"The {type(model).__name__} has no generator for an adapter {adapter_name!r}. Make one with "
            "`get_peft_model(model, QPAConfig(...))` or `qpa_hf.generate(model)`, or name another adapter."
        )
    return bank


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and afterwards each of its modules into the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
