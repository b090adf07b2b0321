"""The native form of a PEFT model whose method's tensors are generated: small, and resumable by Trainer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor, nn

from qpa_hf._version import __version__
from qpa_hf.checkpoint import read_weights, write_text
from qpa_hf.generating.generation import GENERATOR_NAME, Generation, remove
from qpa_hf.generating.vanilla import vanilla_config
from qpa_hf.tuner.layers import Whole
from qpa_hf.tuner.model import names_of
from qpa_hf.tuner.registration import register_unloadable

KIND = "GENERATED"  # stands where PEFT looks for its method, so that it stops instead of loading nothing


class Unloadable(PeftConfig):
    """What PEFT finds for a native folder, whose generator only `load_generated` knows how to place."""

    def __init__(self, base_model_name_or_path: str | None = None, **settings: Any) -> None:
        raise ValueError(
            f"The tensors of this {settings['method']['peft_type']} adapter are generated, which PEFT cannot load by "
            f"itself. Use `qpa_hf.load_generated(base, folder)` on its base model ({base_model_name_or_path})."
        )


register_unloadable(KIND, Unloadable)


class GeneratedPeftModel(Whole):
    """What a `PeftModel` does otherwise once its method's tensors are generated."""

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, selected_adapters: Any = None, **kwargs: Any
    ) -> None:
        """Save the generator of the generated adapter, and other adapters as PEFT does."""
        model: Any = self
        generation: Generation = model.__dict__["_generation"]
        names = list(selected_adapters or model.peft_config)
        others = [name for name in names if name != generation.adapter_name]
        if others:
            super().save_pretrained(save_directory, *args, selected_adapters=others, **kwargs)  # type: ignore[misc]
        if generation.adapter_name in names and kwargs.get("is_main_process", True):
            is_default = generation.adapter_name == "default"
            folder = Path(save_directory) if is_default else Path(save_directory, str(generation.adapter_name))
            folder.mkdir(parents=True, exist_ok=True)
            save_file(_state(model, generation), folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
            write_text(folder / CONFIG_NAME, json.dumps(_settings(model, generation), indent=2) + "\n")

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Activate adapters as PEFT does; the generator is trained if its adapter is one of them."""
        options = {"inference_mode": True} if inference_mode else {}  # which peft 0.18 does not know
        super().set_adapter(adapter_name, **options)  # type: ignore[misc]
        generation: Generation = self.__dict__["_generation"]
        is_trained = generation.adapter_name in names_of(adapter_name) and not inference_mode
        generation.bank.generator.requires_grad_(is_trained)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Freeze or train adapters as PEFT does, the generator with its own."""
        super().set_requires_grad(adapter_names, requires_grad=requires_grad)  # type: ignore[misc]
        generation: Generation = self.__dict__["_generation"]
        if generation.adapter_name in names_of(adapter_names):
            generation.bank.generator.requires_grad_(requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter as PEFT does, the generated one with its generator."""
        model: Any = self
        generation: Generation = model.__dict__["_generation"]
        if adapter_name != generation.adapter_name:
            was_active = generation.adapter_name in model.active_adapters
            super().delete_adapter(adapter_name)  # type: ignore[misc]
            if not was_active and generation.adapter_name in model.active_adapters:
                generation.bank.generator.requires_grad_(not model.active_peft_config.inference_mode)
            return
        remove(model)  # which makes an ordinary PeftModel of it
        model.delete_adapter(adapter_name)

    def load_adapter(self, model_id: str | os.PathLike[str], adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """Load the generator if `model_id` is a native folder of the generated adapter, else as PEFT does."""
        model: Any = self
        generation: Generation = model.__dict__["_generation"]
        if adapter_name != generation.adapter_name:
            return super().load_adapter(model_id, adapter_name, *args, **kwargs)  # type: ignore[misc]
        settings = read_settings(model_id)
        if settings["layout"] != generation.layout:
            raise ValueError(
                f"{model_id} generates other tensors than this model. Load it onto the base model and with the method "
                f"that it was trained with ({settings['base_model_name_or_path']}, {settings['method']['peft_type']})."
            )
        theirs, ours = settings["generator"], _plain(generation.settings)
        for name in ours:
            if theirs.get(name) != ours[name]:
                raise ValueError(
                    f"{model_id} was trained with `{name}`={theirs.get(name)!r}, but this model's generator has "
                    f"{ours[name]!r}. Call `generate` with the settings of the training."
                )
        weights = read_weights(Path(model_id))
        own = {name for name in model.state_dict() if name.startswith(f"{GENERATOR_NAME}.")}
        if missing := sorted(own - weights.keys()):
            raise ValueError(f"{model_id} lacks {missing[0]}. Save or download it again.")
        result = model.load_state_dict(weights, strict=False)
        if result.unexpected_keys:
            raise ValueError(f"{model_id} has {result.unexpected_keys[0]}, for which this model has no place.")
        return result


def load_generated(base: nn.Module, folder: str | os.PathLike[str], is_trainable: bool = False) -> PeftModel:
    """Load the native form of an adapter whose tensors `generate` generated, as `save_pretrained` wrote it.

    Args:
        base: the base model it was trained with.
        folder: the saved adapter.
        is_trainable: load it for further training.

    Raises:
        ValueError: if `folder` holds no such adapter, or one of another base model, which is left as it was.
    """
    from qpa_hf.generating.generate import put_in

    settings = read_settings(folder)
    method = dict(settings["method"])
    config = PEFT_TYPE_TO_CONFIG_MAPPING[method.pop("peft_type")](**method)
    model = get_peft_model(base, config, adapter_name=settings["adapter_name"])
    try:
        put_in(model, [name for name, _ in settings["layout"]], settings["generator"])
        model.load_adapter(folder, settings["adapter_name"])
    except Exception:
        if not config.is_prompt_learning:  # which leaves the base model as it is
            model.unload()
        raise
    if not is_trainable:
        model.requires_grad_(False)
        model.eval()
    return model


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a native folder says of itself.

    Raises:
        ValueError: if it is none.
    """
    path = Path(folder) / CONFIG_NAME
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if settings.get("peft_type") != KIND:
        raise ValueError(f"{folder} holds no adapter with a generator. Pass a folder that `save_pretrained` wrote.")
    return settings


def _state(model: PeftModel, generation: Generation) -> dict[str, Tensor]:
    """Return the generator's numbers, and what the method saves beside the generated tensors."""
    prefixes = (f"{GENERATOR_NAME}.", "prompt_encoder.")
    kept = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with generation.plain() as generated, torch.no_grad():
        vanilla = get_peft_model_state_dict(model, adapter_name=str(generation.adapter_name))
        saved = {value.data_ptr() for value in vanilla.values() if value.numel()}
        for name, value in model.state_dict().items():
            if value.data_ptr() in saved or name.startswith(prefixes):
                kept.add(name)
        kept -= generated.keys()
    state = model.state_dict()
    return {name: state[name].detach().cpu().contiguous().clone() for name in sorted(kept) if name in state}


def _settings(model: PeftModel, generation: Generation) -> dict[str, Any]:
    config = vanilla_config(model, str(generation.adapter_name))
    config.inference_mode = False
    return {
        "peft_type": KIND,
        "qpa_hf_version": __version__,
        "adapter_name": generation.adapter_name,
        "base_model_name_or_path": config.base_model_name_or_path,
        "task_type": config.task_type,
        "method": _plain(config.to_dict()),
        "generator": _plain(generation.settings),
        "layout": generation.layout,
    }


def _plain(value: Any) -> Any:
    """Return a value with sets and enums as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (set, list, tuple)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set) else value)]
    return getattr(value, "value", value)
