"""Where a callback finds the adapter's numbers: in the model, or, if that is sharded, in Trainer's checkpoint."""

from __future__ import annotations

from pathlib import Path

from peft.utils import CONFIG_NAME
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from qpa_hf.models import active_adapters_of, is_adapted, unwrapped
from qpa_hf.networks.plain import has_plain_form
from qpa_hf.sharding import is_fsdp, is_zero3
from qpa_hf.tuners.qpa import QPAConfig


def checkpoint_folder(args: TrainingArguments, step: int) -> Path:
    """Return Trainer's directory for the checkpoint of a step."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def native_folder(checkpoint: Path, adapter_name: str) -> Path:
    """Return where PEFT saves an adapter within a checkpoint."""
    return checkpoint if adapter_name == "default" else checkpoint / adapter_name


def plain_folder(checkpoint: Path) -> Path:
    """Return where the plain adapter of a checkpoint lies.

    Not directly in the checkpoint: on resuming, Trainer takes an adapter there for another one of the model's.
    """
    return checkpoint / "plain" / "adapter"


def is_qpa(model: nn.Module, adapter_name: str) -> bool:
    """Whether an adapter is QPA's own, whose native folder is enough to materialize it; others need the base model."""
    return isinstance(getattr(unwrapped(model), "peft_config", {}).get(adapter_name), QPAConfig)


def is_loaded_by_trainer(model: nn.Module, adapter_name: str) -> bool:
    """Whether Trainer loads an adapter from the best checkpoint: the first active one, if it is named "default"."""
    return adapter_name == "default" and active_adapters_of(unwrapped(model))[:1] == ["default"]


def check(model: nn.Module, adapter_name: str) -> None:
    """Refuse an adapter that `materialize` cannot write, before any step is taken.

    Raises:
        ValueError: for an adapter that is plain already, or that does not exist.
    """
    peft_model = unwrapped(model)
    known = getattr(peft_model, "peft_config", {})
    if not is_adapted(peft_model) or not known or not has_plain_form(peft_model, adapter_name):
        raise ValueError(
            f"There is nothing to materialize in `adapter_name`={adapter_name!r} of the adapters {list(known)}. Name "
            "a generated one; Trainer saves and pushes a plain one by itself."
        )


def source_of(model: nn.Module, native: Path, adapter_name: str) -> nn.Module | Path:
    """Return the model, or `native`, for which Trainer has gathered a sharded one: alone, one process could not.

    Raises:
        RuntimeError: if the model is sharded and there is no adapter in `native`, or the adapter is not QPA's own.
    """
    if not (is_fsdp(model) or is_zero3(model)):
        return model
    if not is_qpa(model, adapter_name):
        raise RuntimeError(
            "The model is sharded, and only QPA's own adapters can be materialized from a checkpoint without the base "
            "model. Train under DistributedDataParallel, or use a QPAConfig."
        )
    if not (native / CONFIG_NAME).is_file():
        raise RuntimeError(
            f"The model is sharded, and Trainer saved no whole adapter in {native}. Let it save checkpoints, with "
            "FSDP's `state_dict_type` at FULL_STATE_DICT."
        )
    return native
