"""What a run would do: everything that can be checked and counted before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qpa_hf.plan import Plan, plan
from qpa_hf.training.folder import check_run
from qpa_hf.training.resuming import last_checkpoint
from qpa_hf.training.run import check_finished, is_written, training_arguments
from qpa_hf.training.settings import RunSettings, check_stages, read_data
from qpa_hf.training.tasks import TASKS


@dataclass(frozen=True)
class Rehearsal:
    """What a run would do.

    Args:
        settings: the run's.
        folder: where it would write.
        begins: "anew"; at a checkpoint, its path; or "finished", where nothing is left to train.
        n_train: examples to train on.
        n_validation: examples to evaluate on.
        data: what these are, in a line.
        n_steps: of one process.
        plan: what the adapter costs.
    """

    settings: RunSettings
    folder: Path
    begins: str
    n_train: int
    n_validation: int
    data: str
    n_steps: int
    plan: Plan

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the settings, for machines."""
        unit = TASKS[self.settings.task].unit
        counts = {f"train_{unit}": self.n_train, f"validation_{unit}": self.n_validation, "steps": self.n_steps}
        return {"output": str(self.folder), "begins": self.begins} | counts | {"plan": self.plan.to_dict()}

    def __str__(self) -> str:
        training, unit = self.settings.training, TASKS[self.settings.task].unit
        how = f"learning rate {training['learning_rate']:g} ({training['lr_scheduler_type']})"
        begins = {"anew": "A new run", "finished": "A finished run, which would only be loaded,"}
        return "\n".join(
            [
                f"{begins.get(self.begins, f'A run that goes on from {self.begins}')} in {self.folder}",
                f"Model: {self.settings.model}",
                self.data,
                f"Training: {self.n_steps:,} steps of {training['per_device_train_batch_size']} {unit} for each "
                f"device, {how}",
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
    task = TASKS[settings.task]
    data = read_data(settings)
    n_steps = settings.n_steps(len(data.train))
    check_stages(config, n_steps)
    check_run(folder, settings, data, is_fresh)
    begins = "anew"
    if not is_fresh:
        check_finished(folder)
        begins = "finished" if is_written(folder) else last_checkpoint(folder / "checkpoints") or "anew"
    training_arguments(settings, folder / "checkpoints")
    with torch.device("meta"):
        base = task.empty(settings.model, data)
    task.check(base, settings.model, data, "data.block_length")
    counts = (len(data.train), len(data.validation), task.describe(data, settings.data), n_steps)
    return Rehearsal(settings, folder, begins, *counts, plan(config, base, n_steps=n_steps))
