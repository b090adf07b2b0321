"""One training run: train, evaluate, save, materialize; interrupted, it goes on where it stopped."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from qpa_hf.accelerators import check_kernels
from qpa_hf.materialize import NotFiniteError, materialize
from qpa_hf.model_cards import RECORD_NAME, Result, RunRecord, add_record
from qpa_hf.models import bank_of
from qpa_hf.trainer_callbacks import CircuitMetricsCallback, GradientBasisCallback
from qpa_hf.training.announcement import EstimateCallback, announce
from qpa_hf.training.data import Examples
from qpa_hf.training.folder import discard, started_run
from qpa_hf.training.progress import QuietProgress
from qpa_hf.training.resuming import last_checkpoint, train_or_resume
from qpa_hf.training.settings import RunSettings, check_stages, read_data
from qpa_hf.training.standstill import StandstillCallback
from qpa_hf.training.tasks import TASKS, Task
from qpa_hf.tuners.qpa import QPAConfig
from qpa_hf.tuners.qpa.refusals import naming_layers


class TrainingError(RuntimeError):
    """A run failed when it had begun to train, which its settings alone did not show."""


@dataclass(frozen=True)
class Finished:
    """What a run left behind.

    Args:
        trainer: the trainer, with the trained model and everything that it logged.
        task: what was trained for.
        before: the task's metrics on the validation examples, with the untrained adapter.
        after: the same after training.
        sample: a prompt from the validation examples, and what the model writes after it without and with the
            adapter; None of a model that writes no text.
    """

    trainer: Trainer
    task: Task
    before: dict[str, float]
    after: dict[str, float]
    sample: dict[str, str] | None = None

    @property
    def model(self) -> PeftModel:
        """The trained model."""
        assert isinstance(self.trainer.model, PeftModel)
        return self.trainer.model

    @property
    def loss(self) -> float:
        """The mean loss on the validation examples after training, in nats."""
        return self.task.loss_of(self.after)

    @property
    def n_trainable(self) -> int:
        """How many parameters were trained, in all stages together."""
        config = self.model.active_peft_config
        once = self.model.get_nb_trainable_parameters()[0]
        if getattr(config, "n_stages", 1) == 1:
            return once
        generator = bank_of(self.model, self.model.active_adapter).generator
        return once + (config.n_stages - 1) * generator.spec.n_trainable

    @property
    def losses(self) -> list[tuple[int, float]]:
        """Training loss in nats (per token, if tokens are predicted) at each logged step."""
        return self._logged("loss")

    @property
    def validation_losses(self) -> list[tuple[int, float]]:
        """The same on the validation examples, at each evaluation during training."""
        return self._logged("eval_loss")

    def _logged(self, name: str) -> list[tuple[int, float]]:
        return [(int(row["step"]), row[name]) for row in self.trainer.state.log_history if name in row]


def fit(config: PeftConfig, settings: RunSettings, data: Examples, folder: Path, **training: Any) -> Finished:
    """Train one adapter of any kind on the run's base model and examples.

    Args:
        config: the configuration of the adapter.
        settings: the settings of the run, of which the adapter is not looked at.
        data: the examples to train and evaluate on.
        folder: the folder for checkpoints, of which the newest complete one is resumed.
        training: changes to the run's training arguments, such as `learning_rate`, or `callbacks`; and `announced`, a
            function of the Trainer that is called before anything starts.
    """
    task = TASKS[settings.task]
    callbacks = training.pop("callbacks", [])
    announced = training.pop("announced", lambda trainer: None)
    arguments = training_arguments(settings, folder, **training)
    set_seed(arguments.seed)
    base = task.load(settings.model, data, config)
    task.check(base, settings.model, data, "data.block_length")
    with naming_layers(base):
        model = get_peft_model(base, config)
    rows = (task.rows(data.train, data), task.rows(data.validation, data))
    trainer = task.trainer(model, arguments, data, rows, callbacks)
    for printing in (ProgressCallback, PrinterCallback):  # the second where transformers is told to log less
        trainer.remove_callback(printing)
    is_gradient = isinstance(config, QPAConfig) and config.basis == "gradient"
    if is_gradient:
        trainer.add_callback(GradientBasisCallback(trainer, fit_head=task.has_head))
    has_bars = not arguments.disable_tqdm
    if has_bars:
        trainer.add_callback(QuietProgress)
    announced(trainer)
    # Before anything is resumed, so that it is the untrained adapter's in a resumed run, too. Without bases it is the
    # base model that answers.
    with model.disable_adapter() if is_gradient else nullcontext():
        before = task.evaluate(model, data.validation, data, has_bars)
    if math.isfinite(task.loss_of(before)):
        trainer.add_callback(StandstillCallback(task.loss_of(before)))
    try:
        train_or_resume(trainer, last_checkpoint(folder))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        words = map(str, error.args) if isinstance(error, KeyError) else [str(error)]  # that one quotes its message
        raise TrainingError(" ".join(words)) from error
    return Finished(trainer, task, before, task.evaluate(model, data.validation, data, has_bars))


def training_arguments(settings: RunSettings, folder: Path, **changes: Any) -> TrainingArguments:
    """Return the arguments of a run's Trainer, once it is known that this machine can run it.

    Args:
        settings: the run's.
        folder: for checkpoints.
        changes: to the run's training arguments.
    """
    # Bars are the run's to decide; else the level of transformers' log would.
    does_pin = torch.accelerator.is_available() and not torch.backends.mps.is_available()
    own = {"dataloader_pin_memory": does_pin, "disable_tqdm": False}
    arguments = TASKS[settings.task].arguments(output_dir=str(folder), **(own | settings.training | changes))
    check_kernels(arguments.device)
    return arguments


def train(settings: RunSettings, folder: Path, is_fresh: bool = False) -> Finished:
    """Run the settings: `native/` and `adapter/` in `folder` are the generator and the plain LoRA adapter.

    Called again with the same settings, it resumes an interrupted run; with `is_fresh`, an earlier run is removed once
    the new one has taken a step.

    Raises:
        BlockingIOError: if another process uses the folder.
        FileExistsError, FileNotFoundError, ValueError, TypeError: for settings, data or a folder that will not do,
            or a finished run that kept no checkpoint, before anything is trained.
        TrainingError: if the training fails, by diverging for instance.
    """
    config = settings.adapter_config()
    data = read_data(settings)
    check_stages(config, settings.n_steps(len(data.train)))
    with started_run(folder, settings, data, is_fresh):
        check_finished(folder)
        callbacks = [CircuitMetricsCallback(), EstimateCallback(), _DiscardEarlier(folder)]
        say_first = partial(announce, settings=settings, data=data)
        checkpoints = folder / "checkpoints"
        finished = fit(config, settings, data, checkpoints, callbacks=callbacks, announced=say_first)
        finished = replace(finished, sample=finished.task.sample(finished.model, data))
        if is_written(folder):
            if not math.isfinite(finished.loss):  # else nothing would have been written
                raise ValueError(
                    f"The last checkpoint in {folder} was damaged after the run: its values are not finite. Use its "
                    "adapter/, or --fresh or another folder to train it again."
                )
            return finished
        # The adapter is materialized first: it is what the run is for, and is refused if a value in it is not finite.
        # The record of the generator is written last, and says that all is there.
        record = _record(finished, settings, data)
        try:
            materialize(finished.model, folder / "adapter", record=record)
        except NotFiniteError as error:
            raise TrainingError(f"{error} For other settings use --fresh or another folder.") from error
        finished.model.save_pretrained(str(folder / "native"))
        add_record(folder / "native", record)
    return finished


class _DiscardEarlier(TrainerCallback):
    """Removes the run that a new one replaces as soon as that has taken a step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        discard(self.folder)


def is_written(folder: Path) -> bool:
    """Whether a run is over: the record of its generator is written last."""
    return (folder / "native" / RECORD_NAME).is_file()


def check_finished(folder: Path) -> None:
    """Raise FileExistsError for a finished run that kept nothing to go on from."""
    if is_written(folder) and last_checkpoint(folder / "checkpoints") is None:
        raise FileExistsError(
            f"{folder} holds the finished run, without a checkpoint to load. Use its adapter/, or --fresh or "
            "another folder to train it again."
        )


def _record(finished: Finished, settings: RunSettings, data: Examples) -> RunRecord:
    values = {metric.name: finished.after[metric.name] for metric in finished.task.listed}
    results = [Result(name, value, data.name, data.validation_split) for name, value in values.items()]
    datasets = [data.name] if data.name else []
    facts = {"labels": list(data.labels), "task": finished.task.hub_task}
    known = RunRecord(datasets=datasets, results=results, **facts, **settings.record)
    return RunRecord.from_trainer(finished.trainer.args, finished.trainer.state, known)
