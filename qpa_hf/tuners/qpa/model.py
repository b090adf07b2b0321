"""`QPAModel`: PEFT's LoRA model with generated tensors in the place of its Parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from peft import LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer, LoraModel
from torch import Tensor, nn

from qpa_hf.accelerators import warn_of_missing_kernels
from qpa_hf.generator import Bank
from qpa_hf.messages import one_line
from qpa_hf.reading import BankHolder, refuse_replica
from qpa_hf.schema import check_sizes
from qpa_hf.sharding import gathered_bank
from qpa_hf.tuners.qpa.config import QPAConfig
from qpa_hf.tuners.qpa.experts import translate_experts
from qpa_hf.tuners.qpa.injected import CHILD, generator_numbers, injecting, place_in
from qpa_hf.tuners.qpa.refusals import check_tokens, refuse_plain_tensors
from qpa_hf.tuners.qpa.saved import check_fit
from qpa_hf.tuners.qpa.slots import (
    Layout,
    attach_targets,
    build_bank,
    collect,
    device_of,
    layout_of,
    magnitudes_of,
    slots_of,
    target_names,
    tensors_of,
)
from qpa_hf.tuners.qpa.waste import warn_if_wasteful


def plain_lora_config(config: QPAConfig) -> LoraConfig:
    """Return the LoRA configuration of what a QPA adapter generates, without any field of ours."""
    plain = {f.name: getattr(config, f.name) for f in fields(LoraConfig) if f.init and f.name != "peft_type"}
    plain["trainable_token_indices"] = plain["trainable_token_indices"] or None
    return LoraConfig(**plain)


def generated_tensors(model: Any, adapter_name: str) -> dict[str, Tensor]:
    """Return copies of the generated tensors of a QPAModel, or of a model with injected adapters, by their names."""
    return tensors_of(gathered_bank(model.banks[adapter_name]), slots_of(model.peft_config[adapter_name].layout))


def names_of(adapter_names: str | Sequence[str]) -> list[str]:
    """Return adapters' names as a list, where PEFT takes one name too."""
    return [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)


@contextmanager
def _in_one_stage(config: Any) -> Iterator[None]:
    """Let PEFT copy a configuration with a rank that its stages need not divide."""
    n_stages = getattr(config, "n_stages", 1)
    if n_stages == 1:
        yield
        return
    config.n_stages = 1
    try:
        yield
    finally:
        config.n_stages = n_stages


def _bank_of_config(model: QPAModel, config: QPAConfig) -> Bank | None:
    """Return the bank of the adapter that has this configuration, if there is one.

    Who adds an adapter with another's configuration may copy its Parameters (TRL's reference policy), and then expects
    the same shots.
    """
    return next((bank for name, bank in model.banks.items() if model.peft_config[name] == config), None)


class QPAModel(LoraModel, BankHolder):
    """A base model with adapters whose LoRA tensors a quantum circuit and a mapping model generate.

    Made by `get_peft_model(base, QPAConfig(...))`. Layers, merging, mixed batches and saving are PEFT's own; the
    generator of each adapter is the flat module `lora_qpa[adapter_name]`.

    Args:
        model: the base model.
        peft_config: configurations by adapter name.
        adapter_name: the first adapter.
        kwargs: passed on to `peft.LoraModel`.

    `inject_adapter_in_model`, and with it transformers' `add_adapter` and `load_adapter`, make one and drop it: the
    generators are then the model's own (`injected.py`).

    Example:
        >>> from peft import get_peft_model
        >>> from qpa_hf import QPAConfig
        >>> network = nn.Sequential(nn.Linear(512, 512))
        >>> model = get_peft_model(network, QPAConfig(r=8, target_modules=["0"]))
        >>> type(model.base_model).__name__
        'QPAModel'
        >>> model.base_model.lora_qpa["default"].angles.shape  # (circuits, layers, qubits)
        torch.Size([8, 8, 5])
    """

    peft_config: dict[str, Any]
    _is_merged = False

    def __init__(self, model: nn.Module, peft_config: Any, adapter_name: str, **kwargs: Any) -> None:
        self.banks = {}  # before PEFT's part, which adds the first adapter
        self._plain_adapters: set[str] = set()  # the results of `add_weighted_adapter`
        self._is_injecting = isinstance(peft_config, PeftConfig)  # a `PeftModel` passes a dictionary
        if self._is_injecting:
            with injecting(model):
                super().__init__(model, peft_config, adapter_name, **kwargs)
            return
        super().__init__(model, peft_config, adapter_name, **kwargs)
        self.register_load_state_dict_post_hook(refuse_plain_tensors)

    @classmethod
    def _get_adapter_state_dict(
        cls, model: Any, config: Any, adapter_name: str, state_dict: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        # PEFT finds what belongs to an adapter below its tuner and its layers; a bare model has no tuner.
        found = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, *args, **kwargs)
        return found | generator_numbers(model, adapter_name, state_dict)

    @classmethod
    def _convert_state_dict_for_initial_model(cls, *_: Any) -> dict[str, Tensor]:
        raise ValueError(
            "`path_initial_model_for_weight_conversion` is for initialisations that change the base model, which QPA "
            "has none of. Leave it out; `qpa_hf.materialize` writes a plain LoRA."
        )

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        config = self.peft_config[adapter_name]
        check_tokens(config.trainable_token_indices, model)
        check_sizes(config, [parameter.shape for parameter in model.parameters()])
        if isinstance(config, QPAConfig) and isinstance(config.layout, Layout):
            # Another model has this configuration, and its layout is in it.
            config = self.peft_config[adapter_name] = copy.copy(config)
        if isinstance(config, QPAConfig):
            translate_experts(config, model)
        trained = [(p, p.requires_grad) for bank in self.banks.values() for p in bank.generator.parameters()]
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except ValueError as error:  # PEFT prints whole modules
            raise ValueError(one_line(error)) from error
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
        config = self.peft_config[adapter_name]
        targets = collect(model, adapter_name, config.basis == "gradient")
        slots = [target.slot for target in targets]
        check_fit(config, slots)
        bank = build_bank(config, slots, magnitudes_of(config, targets))
        is_loaded = config.is_loaded
        if is_loaded:
            bank.generator.expect_checkpoint()
        else:
            warn_if_wasteful(config, bank.generator.spec)
        if isinstance(config.layout, Layout) and (original := _bank_of_config(self, config)):
            bank.generator.draw_like(original.generator)
        config.layout = layout_of(slots)
        if getattr(config, "ensure_weight_tying", False):
            # PEFT takes the tied layers out of the targets, and would not find them again when loading.
            config.target_modules = target_names(slots)
        device = device_of(targets)
        warn_of_missing_kernels(device)
        attach_targets(bank, targets)
        if self._is_injecting:
            generators = place_in(model, adapter_name, bank, is_loaded)
        else:
            if CHILD not in self._modules:
                # The name must contain "lora_": PEFT up to 0.20 selects what it saves by that prefix.
                self.add_module(CHILD, nn.ModuleDict())
            generators = self.lora_qpa
        generators[adapter_name] = bank.generator.to(device)
        self.banks[adapter_name] = bank
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
        banks = [self.banks[name] for name in active if name in self.banks]
        try:
            for bank in banks:
                bank.begin_forward()
            with super()._enable_peft_forward_hooks(*args, **kwargs):
                yield
        finally:
            for bank in banks:
                bank.end_forward()

    def refresh(self) -> None:
        """Generate every adapter anew at its next use, which happens by itself where a number has changed."""
        for bank in self.banks.values():
            bank.refresh()

    def generated_tensors(self, adapter_name: str = "default") -> dict[str, Tensor]:
        """Return copies of the generated tensors by their names in a plain LoRA checkpoint.

        Where FSDP2 has sharded the model, every process must call this together.
        """
        return generated_tensors(self, adapter_name)

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        super().merge_adapter(*args, **kwargs)
        self._is_merged = any(layer.merged for layer in self.modules() if isinstance(layer, LoraLayer))

    def unmerge_adapter(self) -> None:
        super().unmerge_adapter()
        self._is_merged = False

    def _train(self, adapter_names: Iterable[str]) -> None:
        """Let the generators of these adapters be trained if they are active and not loaded for inference."""
        for name in adapter_names:
            if name in self.banks:
                is_trained = name in self.active_adapters and not self.peft_config[name].inference_mode
                self.banks[name].generator.requires_grad_(is_trained)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        super().set_adapter(adapter_name, inference_mode=inference_mode)
        for name, bank in self.banks.items():
            bank.generator.requires_grad_(name in names_of(adapter_name) and not inference_mode)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        super().set_requires_grad(adapter_names, requires_grad=requires_grad)
        for name in names_of(adapter_names):
            if name in self.banks:
                self.banks[name].generator.requires_grad_(requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        before = set(self.active_adapters)
        super().delete_adapter(adapter_name)
        self._plain_adapters.discard(adapter_name)
        if self.banks.pop(adapter_name, None) is not None:
            del self.lora_qpa[adapter_name]
        self._train(set(self.active_adapters) - before)

    def add_weighted_adapter(
        self, adapters: list[str], weights: list[float], adapter_name: str, *args: Any, **kwargs: Any
    ) -> None:
        """As in `peft.LoraModel`; the combination is a plain LoRA adapter, for no generator yields it."""
        if adapter_name in self.peft_config:
            return
        self._plain_adapters.add(adapter_name)
        try:
            with _in_one_stage(self.peft_config.get(adapters[0]) if adapters else None):
                super().add_weighted_adapter(adapters, weights, adapter_name, *args, **kwargs)
        except BaseException:
            self._plain_adapters.discard(adapter_name)
            raise
        self.peft_config[adapter_name] = plain_lora_config(self.peft_config[adapter_name])
