"""`load_generated`: a base model with the generated adapter that `save_pretrained` wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, PromptTuningConfig, PromptTuningInit, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import CONFIG_NAME
from torch import nn

from qpa_hf.checkpoint import tensors_in
from qpa_hf.networks.generate import attach_generator, on_meta
from qpa_hf.networks.native import read_settings
from qpa_hf.networks.refusals import refuse_method
from qpa_hf.reading.attachment import GENERATOR_NAME
from qpa_hf.schema import check_sizes, naming
from qpa_hf.tuners.qpa.machine import MACHINE
from qpa_hf.tuners.qpa.saved import check_generator


def load_generated(
    base: nn.Module, folder: str | os.PathLike[str], is_trainable: bool = False, **machine: Any
) -> PeftModel:
    """Load the native form of an adapter whose tensors `generate` generated, as `save_pretrained` wrote it.

    Args:
        base: the base model that the adapter was trained with.
        folder: the folder of the saved adapter.
        is_trainable: whether the adapter is to be trained further.
        machine: the settings `device`, `device_folder`, `max_jobs` and `max_shots`, which no file can set, to measure
            with the adapter in this process; without them it uses what was measured and saved.

    Raises:
        TypeError: for another keyword.
        ValueError: if `folder` holds no such adapter, one of another base model, which is left as it was, or one
            whose method is not possible.

    Example:
        >>> import tempfile
        >>> from peft import IA3Config, get_peft_model
        >>> from qpa_hf import generate
        >>> def base():
        ...     return nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))
        >>> config = IA3Config(target_modules=["0"], feedforward_modules=[])
        >>> model = generate(get_peft_model(base(), config), chunk_size=4, n_circuits=1, circuit_depth=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     loaded = load_generated(base(), folder)
        >>> loaded.peft_config["default"].peft_type.value
        'IA3'
    """
    if unknown := sorted(machine.keys() - set(MACHINE)):
        raise TypeError(f"`load_generated` has no argument `{unknown[0]}`. Use {', '.join(MACHINE)}.")
    # All of the folder is checked against a generator without values, on the meta device, before the base model is
    # touched: a folder that does not fit leaves the model as it was.
    settings = read_settings(folder)
    with naming(Path(folder) / CONFIG_NAME):
        config = _method(settings["method"])
        there = tensors_in(folder)
        generator = on_meta(settings["generator"], settings["layout"], there)
        # What is missing is named by `load_adapter`.
        check_generator(folder, there, generator, f"{GENERATOR_NAME}.", may_lack=True)
        check_sizes(config, [shape for _, shape in settings["layout"]])
        model = get_peft_model(base, config, adapter_name=settings["adapter_name"])
    try:
        with naming(Path(folder) / CONFIG_NAME):
            attach_generator(model, [name for name, _ in settings["layout"]], settings["generator"] | machine)
        model.load_adapter(folder, settings["adapter_name"])
    except Exception:
        if not config.is_prompt_learning:  # which leaves the base model as it is
            model.unload()
        raise
    if not is_trainable:
        model.requires_grad_(False)
        model.eval()
    return model


def _method(settings: dict[str, Any]) -> PeftConfig:
    """Return the method's configuration as it is loaded: without what reads, fetches or imports beyond the folder."""
    kind = settings["peft_type"]
    config = PEFT_TYPE_TO_CONFIG_MAPPING[kind](**{k: v for k, v in settings.items() if k != "peft_type"})
    refuse_method(kind, config)  # before PEFT makes a model of it: X-LoRA would fetch its experts
    if isinstance(config, PromptTuningConfig):  # its first values would come from a tokenizer or another file
        config.prompt_tuning_init = PromptTuningInit.RANDOM
        config.tokenizer_kwargs = None
    if isinstance(config, LoraConfig):
        config.megatron_core = LoraConfig.megatron_core
    return config
