"""The plain form of a PEFT model's adapter: what PEFT itself would save if the values in use were its Parameters."""

from __future__ import annotations

import contextlib
import copy
from typing import Any, NamedTuple, TypeVar

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from torch import Tensor, nn

from qpa_hf.bottleneck import BottleneckConfig
from qpa_hf.bottleneck.folding import folded
from qpa_hf.generating.generation import Generation, generation_of
from qpa_hf.tuner.config import QPAConfig

Config = TypeVar("Config", bound=PeftConfig)


class Plain(NamedTuple):
    """An adapter without its generator.

    Args:
        tensors: by their names in the checkpoint.
        config: the method's own.
        origin: the generator's settings, for the card; None if there was no generator.
    """

    tensors: dict[str, Tensor]
    config: Any
    origin: QPAConfig | None


def vanilla(model: PeftModel, adapter_name: str) -> Plain | None:
    """Return the plain form of an adapter whose tensors `generate` generated, or which is a LoRA in disguise.

    Args:
        model: has the adapter.
        adapter_name: the adapter's name.

    Returns:
        A bottleneck without a nonlinearity as the LoRA that it is, any other method as PEFT saves it; None for an
        adapter that is neither.
    """
    generation, is_lora = _generation(model, adapter_name), _is_lora(model, adapter_name)
    if generation is None and not is_lora:
        return None
    config = vanilla_config(model, adapter_name)
    with generation.plain() if generation else contextlib.nullcontext():
        state = get_peft_model_state_dict(model, adapter_name=adapter_name)
        if isinstance(config, BottleneckConfig) and is_lora:
            factors, config = folded(model, config, adapter_name)
            state = {key: value for key, value in state.items() if ".bottleneck_" not in key} | factors
        tensors = {key: t.detach().cpu().clone(memory_format=torch.contiguous_format) for key, t in state.items()}
    return Plain(tensors, config, _origin(generation, config) if generation else None)


def has_plain_form(model: PeftModel, adapter_name: str) -> bool:
    """Whether `materialize` has something to write: a generated adapter, or one that is a LoRA in disguise."""
    is_qpa = isinstance(model.peft_config.get(adapter_name), QPAConfig)
    return is_qpa or _generation(model, adapter_name) is not None or _is_lora(model, adapter_name)


def _generation(model: PeftModel, adapter_name: str) -> Generation | None:
    generation = generation_of(model)
    return generation if generation is not None and generation.adapter_name == adapter_name else None


def _is_lora(model: PeftModel, adapter_name: str) -> bool:
    method = model.peft_config.get(adapter_name)
    return isinstance(method, BottleneckConfig) and method.activation == "none"


def vanilla_config(model: PeftModel, adapter_name: str) -> PeftConfig:
    """Return the method's configuration as PEFT would save it."""
    config = copy.deepcopy(model.peft_config[adapter_name])
    config.inference_mode = True
    base = model.get_base_model()
    config.base_model_name_or_path = config.base_model_name_or_path or base.__dict__.get("name_or_path") or None
    return with_base_class(config, base)


def with_base_class(config: Config, base: nn.Module) -> Config:
    """Write the base model's class into a configuration without a task, as PEFT does when it saves one."""
    if config.task_type is None and config.auto_mapping is None:
        config.auto_mapping = {"base_model_class": type(base).__name__, "parent_library": type(base).__module__}
    return config


def _origin(generation: Generation, method: PeftConfig) -> QPAConfig:
    """Return the generator's settings together with what it generates, as a QPA adapter's configuration has them."""
    lora: dict[str, Any] = {"r": method.r, "lora_alpha": method.lora_alpha} if isinstance(method, LoraConfig) else {}
    config = QPAConfig(**generation.settings, **lora)
    config.base_model_name_or_path, config.task_type = method.base_model_name_or_path, method.task_type
    config.layout = [[name, shape, None] for name, shape in generation.layout]
    return config
