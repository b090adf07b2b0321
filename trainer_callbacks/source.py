"""Where a callback finds the generator's numbers: in the model, or, if that is sharded, in Trainer's checkpoint."""

from __future__ import annotations

from pathlib import Path

from peft.utils import CONFIG_NAME
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from qpa_hf.tuner.sharding import is_fsdp, is_zero3


def checkpoint_folder(args: TrainingArguments, step: int) -> Path:
    """Return Trainer's directory for the checkpoint of a step."""
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def native_folder(checkpoint: Path, adapter_name: str) -> Path:
    """Return where PEFT saves an adapter within a checkpoint."""
    return checkpoint if adapter_name == "default" else checkpoint / adapter_name


def source_of(model: nn.Module, native: Path) -> nn.Module | Path:
    """Return the model, or `native`, for which Trainer has gathered a sharded one: alone, one process could not.

    Raises:
        RuntimeError: if the model is sharded and there is no adapter in `native`.
    """
    if not (is_fsdp(model) or is_zero3(model)):
        return model
    if not (native / CONFIG_NAME).is_file():
        raise RuntimeError(
            f"The model is sharded, and Trainer saved no whole adapter in {native}. Let it save checkpoints, with "
            "FSDP's `state_dict_type` at FULL_STATE_DICT."
        )
    return native
