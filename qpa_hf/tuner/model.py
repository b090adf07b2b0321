"""`QPAModel`: PEFT's LoRA model with generated tensors in the place of its Parameters."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer, LoraModel
from torch import Tensor, nn

from qpa_hf.generator import Bank
from qpa_hf.tuner.config import QPAConfig
from qpa_hf.tuner.layers import refuse_replica
from qpa_hf.tuner.sharding import whole_bank
from qpa_hf.tuner.slots import Slot, attach, build_bank, collect, layout_of, slots_of, target_names, tensors_of


def plain_lora_config(config: QPAConfig) -> LoraConfig:
    """Return the LoRA configuration of what a QPA adapter generates, without any field of ours."""
    plain = {f.name: getattr(config, f.name) for f in fields(LoraConfig) if f.init and f.name != "peft_type"}
    plain["trainable_token_indices"] = plain["trainable_token_indices"] or None
    return LoraConfig(**plain)


def names_of(adapter_names: str | Sequence[str]) -> list[str]:
    """Return adapters' names as a list, where PEFT takes one name too."""
    return [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)


class QPAModel(LoraModel):
    """A base model with adapters whose LoRA tensors a quantum circuit and a mapping model generate.

    Made by `get_peft_model(base, QPAConfig(...))`. Layers, merging, mixed batches and saving are PEFT's own; the
    generator of each adapter is the flat module `lora_qpa[adapter_name]`.

    Args:
        model: the base model.
        peft_config: configurations by adapter name.
        adapter_name: the first adapter.
        kwargs: passed on to `peft.LoraModel`.

    Raises:
        ValueError: if used through `inject_adapter_in_model`, which keeps no place for a generator.
    """

    peft_config: dict[str, Any]
    _is_merged = False
    uses_shared_state = True  # newer versions of PEFT refuse `inject_adapter_in_model` by it

    def __init__(self, model: nn.Module, peft_config: Any, adapter_name: str, **kwargs: Any) -> None:
        if isinstance(peft_config, PeftConfig):
            raise ValueError(
                "QPA cannot be injected into a bare model, because its generator lives on the PEFT model around it. "
                "Use `get_peft_model` instead of `inject_adapter_in_model`."
            )
        super().__init__(model, peft_config, adapter_name, **kwargs)
        self.register_load_state_dict_post_hook(_refuse_plain_tensors)

    @property
    def _banks(self) -> dict[str, Bank]:
        return self.__dict__.setdefault("_bank_of", {})

    @property
    def _plain_adapters(self) -> set[str]:
        return self.__dict__.setdefault("_not_generated", set())

    @classmethod
    def _convert_state_dict_for_initial_model(cls, *_: Any) -> dict[str, Tensor]:
        raise ValueError(
            "`path_initial_model_for_weight_conversion` is for initialisations that change the base model, which QPA "
            "has none of. Leave it out; `qpa_hf.materialize` writes a plain LoRA."
        )

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        config = self.peft_config[adapter_name]
        if isinstance(config, QPAConfig) and config.layout is not None and not config._is_loaded:
            # Another model has this configuration, and its layout is in it.
            self.peft_config[adapter_name] = copy.copy(config)
        trained = [(p, p.requires_grad) for bank in self._banks.values() for p in bank.generator.parameters()]
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        for parameter, is_trained in trained:
            parameter.requires_grad_(is_trained)
        if adapter_name in self._plain_adapters:
            return
        try:
            self._add_generator(model, adapter_name)
        except Exception:
            # Refused only now, when the shapes are known: give the base model back without the adapter.
            if len(self.peft_config) == 1:
                self.unload()
            else:
                LoraModel.delete_adapter(self, adapter_name)
            raise

    def _add_generator(self, model: nn.Module, adapter_name: str) -> None:
        """Replace the Parameters that PEFT has just made by reads from a new generator."""
        if "lora_qpa" not in self._modules:
            # The name must contain "lora_": PEFT up to 0.20 selects what it saves by that prefix.
            self.lora_qpa = nn.ModuleDict()
        config = self.peft_config[adapter_name]
        targets = collect(model, adapter_name)
        slots = [target.slot for target in targets]
        _check_layout(config, slots)
        magnitudes = {
            slot.key: parameter
            for slot, parameter, *_ in targets
            if slot.frozen_part == "magnitude" and parameter.device.type != "meta"
        }
        if not config._is_loaded and len(magnitudes) < sum(slot.frozen_part == "magnitude" for slot in slots):
            raise ValueError(
                "`use_dora` takes a new adapter's magnitudes from the base weights, which `low_cpu_mem_usage`=True "
                "leaves without values. Set `low_cpu_mem_usage`=False."
            )
        bank = build_bank(config, slots, magnitudes)
        if not config._is_loaded:
            warn_if_wasteful(config, bank)
        config.layout, config._is_loaded = layout_of(slots), False
        if getattr(config, "ensure_weight_tying", False):
            # PEFT takes the tied layers out of the targets, and would not find them again when loading.
            config.target_modules = target_names(slots)
        device = next((t.parameter.device for t in targets if t.parameter.device.type != "meta"), torch.device("cpu"))
        attach(bank, targets, adapter_name)
        self.lora_qpa[adapter_name] = bank.generator.to(device)
        self._banks[adapter_name] = bank
        self._train([adapter_name])

    def _check_new_adapter_config(self, config: Any) -> None:
        super()._check_new_adapter_config(config)
        if config.bias != "none" and not hasattr(LoraModel, "_get_adapter_state_dict"):
            raise ValueError(
                f"`bias`={config.bias!r} needs peft 0.21 or newer, because older versions do not save the biases of "
                "methods from outside. Upgrade peft or use bias='none'."
            )

    def _check_target_module_compatiblity(self, peft_config: Any, model: nn.Module, target_name: str) -> None:
        # PEFT refuses some layers of Mamba by the name of the method, which ours is not among.
        super()._check_target_module_compatiblity(plain_lora_config(peft_config), model, target_name)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        # Every forward of a PeftModel passes through here; without a `task_type` it does not call this module's own.
        refuse_replica(self)
        # What is merged must be taken out as it was put in, so nothing may change meanwhile.
        active = [] if self._is_merged else self.active_adapters
        banks = [self._banks[name] for name in active if name in self._banks]
        try:
            for bank in banks:
                bank.begin_forward()
            with super()._enable_peft_forward_hooks(*args, **kwargs):
                yield
        finally:
            for bank in banks:
                bank.end_forward()

    def refresh(self) -> None:
        """Generate every adapter anew at its next use; needed only after in-place edits of `.data`."""
        for bank in self._banks.values():
            bank.refresh()

    def generated_tensors(self, adapter_name: str = "default") -> dict[str, Tensor]:
        """Return copies of the generated tensors by their names in a plain LoRA checkpoint.

        Where FSDP2 has sharded the model, every process must call this together.
        """
        return tensors_of(whole_bank(self._banks[adapter_name]), slots_of(self.peft_config[adapter_name].layout))

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        super().merge_adapter(*args, **kwargs)
        self._is_merged = any(layer.merged for layer in self.modules() if isinstance(layer, LoraLayer))

    def unmerge_adapter(self) -> None:
        super().unmerge_adapter()
        self._is_merged = False

    def _train(self, adapter_names: Iterable[str]) -> None:
        """Let the generators of these adapters be trained if they are active and not loaded for inference."""
        for name in adapter_names:
            if name in self._banks:
                is_trained = name in self.active_adapters and not self.peft_config[name].inference_mode
                self._banks[name].generator.requires_grad_(is_trained)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        for name, bank in self._banks.items():
            bank.generator.requires_grad_(name in names_of(adapter_name) and not inference_mode)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        super().set_requires_grad(adapter_names, requires_grad=requires_grad)
        for name in names_of(adapter_names):
            if name in self._banks:
                self._banks[name].generator.requires_grad_(requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        before = set(self.active_adapters)
        super().delete_adapter(adapter_name)
        self._plain_adapters.discard(adapter_name)
        if self._banks.pop(adapter_name, None) is not None:
            del self.lora_qpa[adapter_name]
        self._train(set(self.active_adapters) - before)

    def add_weighted_adapter(
        self, adapters: list[str], weights: list[float], adapter_name: str, *args: Any, **kwargs: Any
    ) -> None:
        """As in `peft.LoraModel`; the combination is a plain LoRA adapter, for no generator yields it."""
        if adapter_name in self.peft_config:
            return
        self._plain_adapters.add(adapter_name)
        first: Any = self.peft_config.get(adapters[0]) if adapters else None
        n_stages = getattr(first, "n_stages", 1)
        if n_stages > 1:
            first.n_stages = 1  # PEFT copies this configuration with a rank that stages need not divide
        try:
            super().add_weighted_adapter(adapters, weights, adapter_name, *args, **kwargs)
        except BaseException:
            self._plain_adapters.discard(adapter_name)
            raise
        finally:
            if n_stages > 1:
                first.n_stages = n_stages
        self.peft_config[adapter_name] = plain_lora_config(self.peft_config[adapter_name])


def _refuse_plain_tensors(model: QPAModel, keys: Any) -> None:
    """Raise where tensors would be loaded that are generated here, which PEFT would pass over in silence."""
    generated = {key for name in model._banks for key, *_ in model.peft_config[name].layout}
    # Versions of PEFT before 0.21 have put the adapter's name in.
    named = re.compile(rf"(\.lora_\w+)\.(?:{'|'.join(map(re.escape, model._banks))})(?=\.|$)")
    if plain := [key for key in keys.unexpected_keys if named.sub(r"\1", key) in generated]:
        raise ValueError(
            f"{plain[0]} is a plain LoRA's tensor, and would have no effect here, where it is generated. Load a plain "
            "adapter onto the base model, with `PeftModel.from_pretrained`."
        )


def _check_layout(config: QPAConfig, slots: list[Slot]) -> None:
    """Compare what a loaded checkpoint generates with what this base model needs."""
    if not config._is_loaded or config.layout is None:
        return
    saved, needed = {key: tuple(shape) for key, shape, _ in config.layout}, {slot.key: slot.shape for slot in slots}
    for key in sorted(saved.keys() | needed.keys()):
        if saved.get(key) != needed.get(key):
            raise ValueError(
                f"The checkpoint does not fit this base model: {key} is {saved.get(key, 'absent')} in the checkpoint "
                f"and {needed.get(key, 'absent')} here. Load it onto the base model it was trained on "
                f"({config.base_model_name_or_path})."
            )


def warn_if_wasteful(config: QPAConfig, bank: Bank) -> None:
    """Warn where a generator has as many numbers as it generates."""
    spec = bank.generator.spec
    if config.source == "direct":
        return
    if config.chunk_size > spec.n_values:
        warnings.warn(
            f"`chunk_size`={config.chunk_size} is more than the {spec.n_values} numbers to generate, so there is one "
            f"chunk and the generator ({spec.n_trainable} numbers) is larger than what it generates. Choose a smaller "
            "`chunk_size`; `qpa_hf.plan` shows several side by side.",
            stacklevel=2,
        )
    elif spec.n_trainable >= spec.n_values:
        warnings.warn(
            f"The generator has {spec.n_trainable} trainable numbers and generates {spec.n_values}. Choose "
            "another `chunk_size`; `qpa_hf.plan` shows several side by side.",
            stacklevel=2,
        )
