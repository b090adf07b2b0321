"""What a PEFT model does otherwise once its method's tensors are generated: it saves and loads its generator."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor

from qpa_hf._version import __version__
from qpa_hf.checkpoint import check_tensors, read_weights, tensors_in, write_text
from qpa_hf.messages import one_line
from qpa_hf.networks.native import KIND, as_json, read_settings
from qpa_hf.networks.plain import plain_config
from qpa_hf.reading import Attachment, ModelRoot, attachment_of, remove
from qpa_hf.reading.attachment import GENERATOR_NAME
from qpa_hf.tuners.qpa.machine import recorded
from qpa_hf.tuners.qpa.model import names_of


class GeneratedPeftModel(ModelRoot):
    """What a `PeftModel` does otherwise once its method's tensors are generated."""

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *args: Any, selected_adapters: Any = None, **kwargs: Any
    ) -> None:
        """Save the generator of the generated adapter, and other adapters as PEFT does."""
        model: Any = self
        attachment = _attached(model)
        names = list(selected_adapters or model.peft_config)
        others = [name for name in names if name != attachment.adapter_name]
        if others:
            super().save_pretrained(save_directory, *args, selected_adapters=others, **kwargs)  # type: ignore[misc]
        if attachment.adapter_name in names and kwargs.get("is_main_process", True):
            is_default = attachment.adapter_name == "default"
            folder = Path(save_directory) if is_default else Path(save_directory, str(attachment.adapter_name))
            folder.mkdir(parents=True, exist_ok=True)
            save_file(_state(model, attachment), folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
            write_text(folder / CONFIG_NAME, json.dumps(_settings(model, attachment), indent=2) + "\n")

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Activate adapters as PEFT does; the generator is trained if its adapter is one of them."""
        options = {"inference_mode": True} if inference_mode else {}  # which peft 0.18 does not know
        super().set_adapter(adapter_name, **options)  # type: ignore[misc]
        attachment = _attached(self)
        is_trained = attachment.adapter_name in names_of(adapter_name) and not inference_mode
        attachment.bank.generator.requires_grad_(is_trained)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Freeze or train adapters as PEFT does, the generator with its own."""
        super().set_requires_grad(adapter_names, requires_grad=requires_grad)  # type: ignore[misc]
        attachment = _attached(self)
        if attachment.adapter_name in names_of(adapter_names):
            attachment.bank.generator.requires_grad_(requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter as PEFT does, the generated one with its generator."""
        model: Any = self
        attachment = _attached(model)
        if adapter_name != attachment.adapter_name:
            was_active = attachment.adapter_name in model.active_adapters
            super().delete_adapter(adapter_name)  # type: ignore[misc]
            if not was_active and attachment.adapter_name in model.active_adapters:
                attachment.bank.generator.requires_grad_(not model.active_peft_config.inference_mode)
            return
        remove(model)  # which makes an ordinary PeftModel of it
        model.delete_adapter(adapter_name)

    def load_adapter(self, model_id: str | os.PathLike[str], adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """Load the generator if `model_id` is a native folder of the generated adapter, else as PEFT does."""
        model: Any = self
        attachment = _attached(model)
        if adapter_name != attachment.adapter_name:
            return super().load_adapter(model_id, adapter_name, *args, **kwargs)  # type: ignore[misc]
        settings = read_settings(model_id)
        if settings["layout"] != attachment.layout:
            raise ValueError(
                f"{model_id} generates other tensors than this model. Load it onto the base model and with the method "
                f"that it was trained with ({one_line(settings['base_model_name_or_path'])}, "
                f"{one_line(settings['method']['peft_type'])})."
            )
        # Other settings make other tensors of the same parameters, which no check of shapes would notice.
        theirs = settings["generator"]
        ours = as_json(recorded(attachment.settings))
        for name in ours:
            if name != "measured_by" and theirs.get(name) != ours[name]:
                raise ValueError(
                    f"{model_id} was trained with `{name}`={theirs.get(name)!r}, but this model's generator has "
                    f"{ours[name]!r}. Call `generate` with the settings of the training."
                )
        # What the generator needs must be there; what the method saves beside it may be missing, as PEFT allows.
        weights = read_weights(Path(model_id))
        state = model.state_dict()
        own = {name for name in state if name.startswith(f"{GENERATOR_NAME}.")}
        if missing := sorted(own - weights.keys()):
            raise ValueError(f"{model_id} lacks {missing[0]}. Save or download it again.")
        state = {name: value for name, value in state.items() if not name.endswith("_extra_state")}
        check_tensors(model_id, {k: v for k, v in tensors_in(model_id).items() if k in state}, state, optional=state)
        result = model.load_state_dict(weights, strict=False)
        if result.unexpected_keys:
            raise ValueError(f"{model_id} has {result.unexpected_keys[0]}, for which this model has no place.")
        return result


def _attached(model: Any) -> Attachment:
    attachment = attachment_of(model)
    assert attachment is not None  # it has made the model's class what it is
    return attachment


def _state(model: PeftModel, attachment: Attachment) -> dict[str, Tensor]:
    """Return the generator's parameters and buffers, and what the method saves beside the generated tensors."""
    # PEFT decides by the method what it saves, and only knows plain Parameters. So these are put back for a moment,
    # and whatever shares memory with what PEFT would save is kept under the name that it has in the whole model.
    prefixes = (f"{GENERATOR_NAME}.", "prompt_encoder.")
    kept = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with attachment.detached() as generated, torch.no_grad():
        vanilla = get_peft_model_state_dict(model, adapter_name=str(attachment.adapter_name))
        saved = {value.data_ptr() for value in vanilla.values() if value.numel()}
        for name, value in model.state_dict().items():
            if value.data_ptr() in saved or name.startswith(prefixes):
                kept.add(name)
        kept -= generated.keys()
    state = model.state_dict()
    return {name: state[name].detach().cpu().contiguous().clone() for name in sorted(kept) if name in state}


def _settings(model: PeftModel, attachment: Attachment) -> dict[str, Any]:
    config = plain_config(model, str(attachment.adapter_name))
    config.inference_mode = False
    return {
        "peft_type": KIND,
        "qpa_hf_version": __version__,
        "adapter_name": attachment.adapter_name,
        "base_model_name_or_path": config.base_model_name_or_path,
        "task_type": config.task_type,
        "method": as_json(config.to_dict()),
        "generator": as_json(recorded(attachment.settings)),
        "layout": attachment.layout,
    }
