"""Write the plain adapter beside each checkpoint of the generator, and say which one is the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qpa_hf.checkpoint import write_text
from qpa_hf.materialize import materialize
from qpa_hf.model_cards import RunRecord, add_record
from qpa_hf.models import unwrapped
from qpa_hf.trainer_callbacks.weights import (
    check,
    checkpoint_folder,
    is_qpa,
    native_folder,
    plain_folder,
    source_of,
)

BEST_NAME = "best_adapter.json"


class MaterializeCallback(TrainerCallback):
    """Materializes the adapter into `checkpoint-N/plain/adapter` at each save; Trainer deletes both together.

    Where Trainer knows a best checkpoint (`load_best_model_at_end` or `metric_for_best_model`), `best_adapter.json` in
    the output directory names it, relative to itself where it lies there. Cards and records of both adapters hold what
    Trainer has recorded until then; the native form of a method whose tensors `generate` generates has none.

    A run that is resumed from a checkpoint without its plain adapter, because it was killed in between, writes that
    first. Only the main process writes. The checkpoints of a hyperparameter search, which serve comparison only, are
    left alone.

    Args:
        adapter_name: which adapter of the model.
        record: what Trainer does not know of the run, for the cards: data sets, licence, a control's result.
        evaluated_on: dataset and split of Trainer's evaluations, for the cards.

    Raises:
        ValueError: when training begins, if the model has no such adapter, or a plain one.

    Example:
        >>> from transformers import Trainer
        >>> callback = MaterializeCallback(evaluated_on=("Salesforce/wikitext", "validation"))
        >>> Trainer(model, callbacks=[callback])  # doctest: +SKIP
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

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        check(kwargs["model"], self.adapter_name)
        resumed = checkpoint_folder(args, state.global_step)
        if state.global_step and resumed.is_dir():  # Trainer's files come first, so ours may be missing after a kill
            finish = self._mark_best if plain_folder(resumed).is_dir() else self._write
            finish(args, state, kwargs["model"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero and not state.is_hyper_param_search:
            self._write(args, state, kwargs["model"])

    def _write(self, args: TrainingArguments, state: TrainerState, model: nn.Module) -> None:
        step = state.global_step
        checkpoint = checkpoint_folder(args, step)
        native = native_folder(checkpoint, self.adapter_name)
        source = source_of(model, native, self.adapter_name)
        record = RunRecord.from_trainer(args, state, self.record, step=step, evaluated_on=self.evaluated_on)
        if is_qpa(model, self.adapter_name):
            add_record(native, record)
        materialize(source, plain_folder(checkpoint), self.adapter_name, record)
        self._mark_best(args, state, model)

    def _mark_best(self, args: TrainingArguments, state: TrainerState, model: nn.Module) -> None:
        marker = Path(str(args.output_dir)) / BEST_NAME
        if state.best_model_checkpoint is None:
            marker.unlink(missing_ok=True)  # that of an earlier run in the same directory
            return
        best = Path(state.best_model_checkpoint)
        if not plain_folder(best).is_dir():  # saved by a run that had no such callback, and resumed
            self._materialize_earlier(best, checkpoint_folder(args, state.global_step), model)
        step = int(best.name.rpartition("-")[2])
        name = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
        values = [row[name] for row in state.log_history if row.get("step") == step and name in row]
        is_here = best.resolve().parent == marker.resolve().parent  # else of a run that was resumed elsewhere
        named = Path(best.name) if is_here else best.resolve()
        best_of: dict[str, Any] = {"checkpoint": named.as_posix(), "adapter": plain_folder(named).as_posix()}
        if values:
            best_of |= {"metric": name, "value": values[-1]}
        write_text(marker, json.dumps(best_of, indent=2) + "\n")

    def _materialize_earlier(self, earlier: Path, latest: Path, model: nn.Module) -> None:
        native = native_folder(earlier, self.adapter_name)
        if is_qpa(model, self.adapter_name):
            materialize(native, plain_folder(earlier))
            return
        peft_model: Any = unwrapped(model)  # it has the base model, so it takes the numbers of then for a moment
        try:
            peft_model.load_adapter(native, self.adapter_name, is_trainable=True)
            materialize(peft_model, plain_folder(earlier), self.adapter_name)
        finally:
            latest = native_folder(latest, self.adapter_name)
            peft_model.load_adapter(latest, self.adapter_name, is_trainable=True)
