"""Write the plain adapter beside each checkpoint of the generator, and say which one is the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qpa_hf.checkpoint import write_text
from qpa_hf.materialize import materialize
from qpa_hf.model_cards import RunRecord, add_record
from qpa_hf.trainer_callbacks.source import checkpoint_folder, native_folder, source_of

BEST_NAME = "best_adapter.json"


class MaterializeCallback(TrainerCallback):
    """Materializes the adapter into `checkpoint-N/adapter` whenever Trainer saves; Trainer deletes both together.

    Where Trainer knows a best checkpoint (`load_best_model_at_end` or `metric_for_best_model`), `best_adapter.json` in
    the output directory names it. Cards and records of both adapters hold what Trainer has recorded until then.

    Only the main process writes. The checkpoints of a hyperparameter search, which serve comparison only, are left
    alone.

    Args:
        adapter_name: which adapter of the model.
        record: what Trainer does not know of the run, for the cards: data sets, licence, a control's result.
        evaluated_on: dataset and split of Trainer's evaluations, for the cards.
    """

    def __init__(
        self,
        adapter_name: str = "default",
        record: RunRecord | None = None,
        evaluated_on: tuple[str, str | None] | None = None,
    ) -> None:
        self.adapter_name = adapter_name
        self.record = record
        self.evaluated_on = evaluated_on

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero or state.is_hyper_param_search:
            return
        checkpoint = checkpoint_folder(args, state.global_step)
        native = native_folder(checkpoint, self.adapter_name)
        source = source_of(kwargs["model"], native)
        step = state.global_step
        record = RunRecord.from_trainer(args, state, self.record, step=step, evaluated_on=self.evaluated_on)
        add_record(native, record)
        materialize(source, checkpoint / "adapter", self.adapter_name, record)
        self._mark_best(args, state)

    def _mark_best(self, args: TrainingArguments, state: TrainerState) -> None:
        marker = Path(str(args.output_dir)) / BEST_NAME
        if state.best_model_checkpoint is None:
            marker.unlink(missing_ok=True)  # that of an earlier run in the same directory
            return
        best = Path(state.best_model_checkpoint)
        if not (best / "adapter").is_dir():  # saved by a run that had no such callback, and resumed
            materialize(native_folder(best, self.adapter_name), best / "adapter")
        step = int(best.name.rpartition("-")[2])
        name = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
        values = [row[name] for row in state.log_history if row.get("step") == step and name in row]
        best_of: dict[str, Any] = {"checkpoint": best.name, "adapter": f"{best.name}/adapter"}
        if values:
            best_of |= {"metric": name, "value": values[-1]}
        write_text(marker, json.dumps(best_of, indent=2) + "\n")
