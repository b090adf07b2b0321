"""The plain form of a PEFT model's adapter: what PEFT itself would save if the values in use were its Parameters."""

from __future__ import annotations

import contextlib
import copy
from typing import Any, NamedTuple, TypeVar

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict
from torch import Tensor, nn

from qpa_hf.checkpoint import GENERATOR_PREFIX
from qpa_hf.reading import Attachment, attachment_of
from qpa_hf.sharding import gathered
from qpa_hf.tuners.bottleneck import BottleneckConfig
from qpa_hf.tuners.bottleneck.folding import folded
from qpa_hf.tuners.qpa.config import QPAConfig
from qpa_hf.tuners.qpa.injected import CHILD
from qpa_hf.tuners.qpa.model import generated_tensors, plain_lora_config
from qpa_hf.tuners.qpa.slots import PREFIX, slots_of, target_names

Config = TypeVar("Config", bound=PeftConfig)


class Plain(NamedTuple):
    """An adapter without its generator.

    Args:
        tensors: the tensors by their names in the checkpoint.
        config: the configuration of the method.
        origin: the settings of the generator, for the card; None if there was no generator.
        is_portable: whether it is a LoRA whose scales are all in B.
    """

    tensors: dict[str, Tensor]
    config: Any
    origin: QPAConfig | None
    is_portable: bool = False


def plain_form(model: PeftModel, adapter_name: str) -> Plain | None:
    """Return the plain form of an adapter whose tensors `generate` generated, or which is a LoRA in disguise.

    Args:
        model: the model that has the adapter.
        adapter_name: the name of the adapter.

    Returns:
        A bottleneck without a nonlinearity as the LoRA that it is, any other method as PEFT saves it; None for an
        adapter that is neither.
    """
    attachment = _attachment(model, adapter_name)
    is_lora = _is_lora(model, adapter_name)
    if attachment is None and not is_lora:
        return None
    config = plain_config(model, adapter_name)
    with attachment.detached() if attachment else contextlib.nullcontext():
        state = get_peft_model_state_dict(model, adapter_name=adapter_name)
        # Without a nonlinearity, W (x + U D x) is W x + (W U) D x: a LoRA of the layer, with A = D and B = W U.
        if isinstance(config, BottleneckConfig) and is_lora:
            factors, config = folded(model, config, adapter_name)
            state = {key: value for key, value in state.items() if ".bottleneck_" not in key} | factors
        tensors = {key: t.detach().cpu().clone(memory_format=torch.contiguous_format) for key, t in state.items()}
    return Plain(tensors, config, _origin(attachment, config) if attachment else None)


def generated_form(model: nn.Module, adapter_name: str) -> Plain:
    """Return the plain form of a QPA adapter.

    Args:
        model: a `PeftModel`, or a model into which the adapter was injected.
        adapter_name: the adapter's name.
    """
    holder: Any = model.base_model if isinstance(model, PeftModel) else model
    # Names in a bare model lack what PEFT puts before them.
    before, generators = ("", GENERATOR_PREFIX) if isinstance(model, PeftModel) else (PREFIX, f"{CHILD}.")
    others = get_peft_model_state_dict(model, adapter_name=adapter_name)
    kept = {before + key: gathered(value) for key, value in others.items() if not key.startswith(generators)}
    tensors = {key: value.detach().cpu().clone() for key, value in kept.items()}
    base = holder.model if isinstance(model, PeftModel) else model
    config = with_base_class(copy.copy(holder.peft_config[adapter_name]), base)
    return Plain(tensors | generated_tensors(holder, adapter_name), lora_config_of(config), config)


def lora_config_of(config: QPAConfig) -> LoraConfig:
    """Return the configuration of a QPA adapter's plain form."""
    plain = plain_lora_config(config)
    plain.inference_mode = True
    if getattr(plain, "ensure_weight_tying", False):
        # PEFT does not load tied adapters from a checkpoint that says so; each is a plain adapter of its own here.
        plain.ensure_weight_tying = False
        plain.target_modules = sorted(target_names(slots_of(config.layout or [])))
    return plain


def has_plain_form(model: Any, adapter_name: str) -> bool:
    """Whether `materialize` has something to write: a generated adapter, or one that is a LoRA in disguise."""
    is_qpa = isinstance(model.peft_config.get(adapter_name), QPAConfig)
    return is_qpa or _attachment(model, adapter_name) is not None or _is_lora(model, adapter_name)


def _attachment(model: Any, adapter_name: str) -> Attachment | None:
    attachment = attachment_of(model)
    return attachment if attachment is not None and attachment.adapter_name == adapter_name else None


def _is_lora(model: Any, adapter_name: str) -> bool:
    method = model.peft_config.get(adapter_name)
    return isinstance(method, BottleneckConfig) and method.activation == "none"


def plain_config(model: PeftModel, adapter_name: str) -> PeftConfig:
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


def _origin(attachment: Attachment, method: PeftConfig) -> QPAConfig:
    """Return the generator's settings together with what it generates, as a QPA adapter's configuration has them."""
    lora: dict[str, Any] = {"r": method.r, "lora_alpha": method.lora_alpha} if isinstance(method, LoraConfig) else {}
    config = QPAConfig(**attachment.settings, **lora)
    config.base_model_name_or_path = method.base_model_name_or_path
    config.task_type = method.task_type
    config.layout = [[name, shape, None] for name, shape in attachment.layout]
    return config
