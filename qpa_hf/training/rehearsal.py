"""What a run would do: everything that can be checked and counted before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from qpa_hf.plan import Plan, plan
from qpa_hf.training.base import check_fit, load_tokenizer
from qpa_hf.training.data import read_data
from qpa_hf.training.folder import check_run
from qpa_hf.training.run import check_finished, is_written, last_checkpoint, training_arguments
from qpa_hf.training.settings import RunSettings, check_stages


@dataclass(frozen=True)
class Rehearsal:
    """What a run would do.

    Args:
        settings: the run's.
        folder: where it would write.
        begins: "anew"; at a checkpoint, its path; or "finished", where nothing is left to train.
        n_train: blocks to train on.
        n_validation: blocks to evaluate on.
        validation: which part of the text these are.
        n_steps: of one process.
        plan: what the adapter costs.
    """

    settings: RunSettings
    folder: Path
    begins: str
    n_train: int
    n_validation: int
    validation: str
    n_steps: int
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the settings, for machines."""
        counts = {"train_blocks": self.n_train, "validation_blocks": self.n_validation, "steps": self.n_steps}
        return {"output": str(self.folder), "begins": self.begins} | counts | {"plan": self.plan.to_dict()}

    def __str__(self) -> str:
        training, length = self.settings.training, self.settings.data.block_length
        begins = {"anew": "A new run", "finished": "A finished run, which would only be loaded,"}
        return "\n".join(
            [
                f"{begins.get(self.begins, f'A run that goes on from {self.begins}')} in {self.folder}",
                f"Model: {self.settings.model}",
                f"Text: {self.n_train:,} blocks of {length} tokens to train on, {self.n_validation:,} to evaluate on "
                f"({self.validation})",
                f"Training: {self.n_steps:,} steps of {training['per_device_train_batch_size']} blocks for each "
                f"device, learning rate {training['learning_rate']:g} ({training['lr_scheduler_type']})",
                str(self.plan),
            ]
        )


def rehearse(settings: RunSettings, folder: Path, is_fresh: bool = False) -> Rehearsal:
    """Check everything that a run checks before it loads the base model's weights, and count what it costs.

    Nothing is written, nor left in the folder.

    Raises:
        BlockingIOError, FileExistsError, FileNotFoundError, ValueError, TypeError: as `train` does.
    """
    config = settings.adapter_config()
    data = read_data(settings.data, load_tokenizer(settings.model))
    n_steps = settings.n_steps(len(data.train))
    check_stages(config, n_steps)
    check_run(folder, settings, data, is_fresh)
    begins = "anew"
    if not is_fresh:
        check_finished(folder)
        begins = "finished" if is_written(folder) else last_checkpoint(folder / "checkpoints") or "anew"
    training_arguments(settings, folder / "checkpoints")
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(settings.model))
    check_fit(base, settings.model, data.train, "data.block_length")
    counts = (len(data.train), len(data.validation), data.validation_split, n_steps)
    return Rehearsal(settings, folder, begins, *counts, plan(config, base, n_steps=n_steps))
