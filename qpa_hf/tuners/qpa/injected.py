"""QPA adapters in a bare model, without a `PeftModel` around it: the generator lives on the model itself.

transformers' `add_adapter` and `load_adapter`, and PEFT's `inject_adapter_in_model`, make a tuner, let it change the
model, and drop it. So everything that the tuner would do later, the model has to do: it keeps the generators as a
child module, which saving and loading find, and tells the banks of each forward.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.functional import delete_adapter
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from qpa_hf.checkpoint import GENERATOR_PREFIX
from qpa_hf.files import replacing
from qpa_hf.generator import Bank
from qpa_hf.reading import BankHolder, ModelRoot, attachment_of
from qpa_hf.reading.attachment import CONTAINERS
from qpa_hf.reading.reader import put_back, replace_parameters
from qpa_hf.tuners.qpa.slots import PREFIX

CHILD = "lora_qpa"  # name of the generators' module, here and in a QPAModel
# How the names of a generator's numbers begin: as they are saved, as transformers saves a bare model's, as they are.
BEGINNINGS = (GENERATOR_PREFIX, f"{PREFIX}{CHILD}.", f"{CHILD}.")


class ActiveBanks:
    """Tells the banks of the active adapters of a bare model when a forward begins and ends.

    Args:
        root: the model.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root

    def _active(self) -> list[Bank]:
        layer = next((m for m in self.root.modules() if isinstance(m, BaseTunerLayer)), None)
        if layer is None or layer.merged:  # what is merged must be taken out as it was put in
            return []
        banks: dict[str, Bank] = self.root.__dict__["banks"]
        return [banks[name] for name in layer.active_adapters if name in banks]

    def begin_forward(self) -> None:
        """Tell that a forward of the model begins."""
        for bank in self._active():
            bank.begin_forward()

    def end_forward(self) -> None:
        """Tell that it has ended."""
        for bank in self._active():
            bank.end_forward()


class InjectedModel(ModelRoot, BankHolder):
    """What any module does otherwise once QPA adapters were injected into it."""

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load as any module does, generators also by the names that they are saved with."""
        self.__dict__.pop("_expects_checkpoint", None)
        renamed = {_as_here(key): value for key, value in state_dict.items()}
        return super().load_state_dict(renamed, *args, **kwargs)  # type: ignore[misc]


def has_adapters(model: Any) -> bool:
    """Whether a model is a `PeftModel`, or one into which QPA adapters were injected."""
    return isinstance(model, (PeftModel, InjectedModel))


class InjectedTransformer(InjectedModel):
    """What a model of transformers does otherwise once QPA adapters were injected into it."""

    def set_adapter(self, adapter_name: list[str] | str) -> None:
        """Activate adapters as transformers does; the generators of these are trained, and no others."""
        super().set_adapter(adapter_name)  # type: ignore[misc]
        names = [adapter_name] if isinstance(adapter_name, str) else adapter_name
        for name, bank in self.banks.items():
            bank.generator.requires_grad_(name in names)

    def delete_adapter(self, adapter_names: list[str] | str) -> None:
        """Delete adapters as transformers does, with their generators."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        model: Any = self
        if others := [name for name in names if name not in self.banks]:  # unknown ones, too, which it names
            super().delete_adapter(others)  # type: ignore[misc]
        for name in [name for name in names if name in self.banks]:
            # transformers would pass a prefix made of the method's name, with which peft 0.18 loses its way.
            delete_adapter(model, name, prefix=LoraModel.prefix)
            del model.peft_config[name], self.banks[name]
            model.get_submodule(CHILD).pop(name)
        if not model.peft_config:
            del model.peft_config
            model._hf_peft_config_loaded = False
        if not self.banks:
            withdraw(model)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save as transformers does, with the names that a `PeftModel` would give the generator's numbers."""
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        weights = Path(save_directory) / SAFETENSORS_WEIGHTS_NAME
        is_renamed = kwargs.get("is_main_process", True) and kwargs.get("save_peft_format", True)
        if not is_renamed or not weights.is_file():
            return
        found = load_file(weights)
        renamed = {_as_saved(key): value for key, value in found.items()}
        if renamed.keys() != found.keys():
            with replacing(weights) as partial:
                save_file(renamed, partial, metadata={"format": "pt"})

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, expected_keys: Any = None
    ) -> Any:
        """Load a generator by itself, for it checks what it is given, and everything else as transformers does."""
        name = model.__dict__.pop("_expects_checkpoint", None)
        if name is None:
            return PreTrainedModel._load_pretrained_model(
                model, state_dict, checkpoint_files, load_config, expected_keys=expected_keys
            )
        own, others = _parted(_read(checkpoint_files) if checkpoint_files else state_dict)
        expected = [key for key in expected_keys or model.state_dict() if not key.startswith(f"{CHILD}.")]
        result = PreTrainedModel._load_pretrained_model(model, others, [], load_config, expected_keys=expected)
        model.get_submodule(CHILD)[name].load_state_dict(own)
        info = result[0]
        info.missing_keys = {key for key in info.missing_keys if not key.startswith(f"{CHILD}.")}
        return result


def _read(files: Sequence[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for file in files:
        is_safe = str(file).endswith(".safetensors")
        found |= load_file(file) if is_safe else torch.load(file, map_location="cpu", weights_only=True)
    return found


def _parted(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the generator's numbers by their names in it, and all others as they are."""
    own: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for key, value in weights.items():
        begun = next((beginning for beginning in BEGINNINGS if key.startswith(beginning)), None)
        if begun is None:
            others[key] = value
        elif "." not in (name := key.removeprefix(begun)):  # peft 0.18 saves other adapters' beside it
            own[name] = value
    return own, others


def _as_here(key: str) -> str:
    begun = next((beginning for beginning in BEGINNINGS if key.startswith(beginning)), None)
    return key if begun is None else f"{CHILD}.{key.removeprefix(begun)}"


def _as_saved(key: str) -> str:
    return GENERATOR_PREFIX + key.removeprefix(BEGINNINGS[1]) if key.startswith(BEGINNINGS[1]) else key


@contextmanager
def injecting(model: nn.Module) -> Iterator[None]:
    """Let a tuner inject an adapter into a bare model, which is left as it was if that fails.

    Raises:
        ValueError: if the model has no place for a generator, because it calls all its children or has one already.
    """
    try:
        _check_place(model)
        yield
    except Exception:
        if not getattr(model, "peft_config", None):
            model.__dict__.pop("_hf_peft_config_loaded", None)  # transformers has set it already
        raise


def _check_place(model: nn.Module) -> None:
    if isinstance(model, CONTAINERS):
        raise ValueError(
            f"QPA cannot be injected into a bare {type(model).__name__}, which would call the generator as one of its "
            "layers. Use `get_peft_model` instead of `inject_adapter_in_model`."
        )
    if attachment_of(model) is not None:
        raise ValueError(
            "`generate` has changed this model already, and an adapter's generator has no place beside its own. Put "
            "the adapter into a model that is as it was loaded, or use `get_peft_model`."
        )


def place_in(model: nn.Module, adapter_name: str, bank: Bank, is_loaded: bool) -> nn.ModuleDict:
    """Give a bare model the bank of an adapter.

    Args:
        model: the model.
        adapter_name: the adapter's name.
        bank: its bank.
        is_loaded: whether its numbers are loaded next.

    Returns:
        The module in which the model keeps its generators.
    """
    if not isinstance(model, InjectedModel):
        model.__dict__["banks"] = {}
        model.add_module(CHILD, nn.ModuleDict())
        kind = InjectedTransformer if isinstance(model, PreTrainedModel) else InjectedModel
        replace_parameters(model, {}, ActiveBanks(model), kind)
    model.__dict__["banks"][adapter_name] = bank
    if is_loaded:
        model.__dict__["_expects_checkpoint"] = adapter_name
    return model.get_submodule(CHILD)  # type: ignore[return-value]


def generator_numbers(model: nn.Module, adapter_name: str, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what a state dict has of the generator of a bare model's adapter; nothing for another model."""
    if not isinstance(model, InjectedModel):
        return {}
    return {key: value for key, value in state_dict.items() if key.startswith(f"{CHILD}.{adapter_name}.")}


def withdraw(model: nn.Module) -> None:
    """Undo what `place_in` has done to a model, once its last generator is gone."""
    del model._modules[CHILD], model.__dict__["banks"]
    model.__dict__.pop("_expects_checkpoint", None)
    put_back(model, {})
