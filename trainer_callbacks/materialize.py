"""Write the plain adapter beside each checkpoint of the generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from qpa_hf.materialize import materialize


class MaterializeCallback(TrainerCallback):
    """Materializes the adapter into `checkpoint-N/adapter` whenever Trainer saves; Trainer deletes both together.

    Only the main process writes.

    Args:
        adapter_name: which adapter of the model.
    """

    def __init__(self, adapter_name: str = "default") -> None:
        self.adapter_name = adapter_name

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            materialize(kwargs["model"], checkpoint / "adapter", self.adapter_name)
