"""One training run: train, evaluate, save, materialize; interrupted, it goes on where it stopped."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from qpa_hf.accelerators import check_kernels
from qpa_hf.checkpoint import check_complete
from qpa_hf.evaluation import perplexity
from qpa_hf.materialize import NotFiniteError, materialize
from qpa_hf.model_cards import RECORD_NAME, Result, RunRecord, add_record
from qpa_hf.models import bank_of
from qpa_hf.terminal import say
from qpa_hf.trainer_callbacks import CircuitMetricsCallback, GradientBasisCallback
from qpa_hf.training.base import check_fit, load_tokenizer
from qpa_hf.training.data import TextData, read_data
from qpa_hf.training.folder import discard, started_run
from qpa_hf.training.settings import RunSettings, check_stages
from qpa_hf.training.standstill import StandstillCallback
from qpa_hf.tuners.qpa import QPAConfig
from qpa_hf.tuners.qpa.refusals import naming_layers

STATE_NAME = "trainer_state.json"


class TrainingError(RuntimeError):
    """A run failed when it had begun to train, which its settings alone did not show."""


@dataclass(frozen=True)
class Finished:
    """What a run left behind.

    Args:
        trainer: the trainer, with the trained model and everything that it logged.
        perplexity_before: the perplexity on the validation text with the untrained adapter.
        perplexity: the perplexity on the validation text after training.
    """

    trainer: Trainer
    perplexity_before: float
    perplexity: float

    @property
    def model(self) -> PeftModel:
        """The trained model."""
        assert isinstance(self.trainer.model, PeftModel)
        return self.trainer.model

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
        """Training loss in nats per token at each logged step."""
        return self._logged("loss")

    @property
    def validation_losses(self) -> list[tuple[int, float]]:
        """Loss on the validation text in nats per token, at each evaluation during training."""
        return self._logged("eval_loss")

    def _logged(self, name: str) -> list[tuple[int, float]]:
        return [(int(row["step"]), row[name]) for row in self.trainer.state.log_history if name in row]


def fit(config: PeftConfig, settings: RunSettings, data: TextData, folder: Path, **training: Any) -> Finished:
    """Train one adapter of any kind on the run's base model and text.

    Args:
        config: the configuration of the adapter.
        settings: the settings of the run, of which the adapter is not looked at.
        data: the blocks to train and evaluate on.
        folder: the folder for checkpoints, of which the newest complete one is resumed.
        training: changes to the run's training arguments, such as `learning_rate`, or `callbacks`.
    """
    callbacks = training.pop("callbacks", [])
    arguments = training_arguments(settings, folder, **training)
    set_seed(arguments.seed)
    base = AutoModelForCausalLM.from_pretrained(settings.model, dtype=torch.float32)
    check_fit(base, settings.model, data.train, "data.block_length")
    with naming_layers(base):
        model = get_peft_model(base, config)
    rows: list[Any] = [[_row(block) for block in blocks] for blocks in (data.train, data.validation)]
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=rows[0],
        eval_dataset=rows[1],
        data_collator=default_data_collator,
        callbacks=callbacks,
    )
    for printing in (ProgressCallback, PrinterCallback):  # the second where transformers is told to log less
        trainer.remove_callback(printing)
    is_gradient = isinstance(config, QPAConfig) and config.basis == "gradient"
    if is_gradient:
        trainer.add_callback(GradientBasisCallback(trainer))
    has_bars = not arguments.disable_tqdm
    if has_bars:
        trainer.add_callback(QuietProgress)
    # Before anything is resumed, so that it is the untrained adapter's in a resumed run, too. Without bases it is the
    # base model that answers.
    with model.disable_adapter() if is_gradient else nullcontext():
        before = perplexity(model, data.validation, progress=has_bars)
    if math.isfinite(before):
        trainer.add_callback(StandstillCallback(before))
    try:
        train_or_resume(trainer, last_checkpoint(folder))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        words = map(str, error.args) if isinstance(error, KeyError) else [str(error)]  # that one quotes its message
        raise TrainingError(" ".join(words)) from error
    return Finished(trainer, before, perplexity(model, data.validation, progress=has_bars))


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
    arguments = TrainingArguments(output_dir=str(folder), **(own | settings.training | changes))
    check_kernels(arguments.device)
    return arguments


def _row(block: Tensor) -> dict[str, Tensor]:
    """Return a block as Trainer takes it: its first token is predicted from nothing, and counts in no mean."""
    labels = block.clone()
    labels[0] = -100
    return {"input_ids": block, "attention_mask": torch.ones_like(block), "labels": labels}


class _Trainer(Trainer):
    def compare_trainer_and_checkpoint_args(self, *args: Any) -> None:
        """Say nothing: `started_run` has compared all settings, and Trainer takes shares of a run for other ones."""


def train_or_resume(trainer: Trainer, checkpoint: str | None) -> None:
    """Train to the end; from a checkpoint of the end Trainer would take one more step, so that one is only loaded."""
    state = TrainerState.load_from_json(str(Path(checkpoint) / STATE_NAME)) if checkpoint else None
    n_steps = max(trainer.args.max_steps, state.max_steps if state is not None else 0)  # more may be asked for now
    if checkpoint is None or state is None or state.global_step < n_steps:
        if checkpoint is not None:
            say(f"Resuming from {checkpoint}.", is_error=True)
        trainer.train(resume_from_checkpoint=checkpoint)
        return
    say(f"The training has already ended, at {checkpoint}; nothing is left to train.", is_error=True)
    best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    newest = Path(checkpoint)
    model = cast(Any, trainer.model)
    # Trainer's path of the best one leads from where the run was started.
    model.load_adapter(str(newest.with_name(Path(best).name)) if best else checkpoint, "default", is_trainable=True)
    trainer.state = state


class QuietProgress(ProgressCallback):
    """Trainer's progress bar, without a printed dictionary for each logged step; the log is in trainer_state.json."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        pass


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint: an interrupted save lacks trainer_state.json, which is written last."""
    # A full disk or a killed process may leave a folder of any state. Each candidate is opened, and none is trusted by
    # its name.
    states = [path for path in folder.glob(f"checkpoint-*/{STATE_NAME}") if _step(path.parent).isdecimal()]
    complete = [path.parent for path in states if _is_state(path) and _is_whole(path.parent)]
    return str(max(complete, key=lambda path: int(_step(path)))) if complete else None


def _step(checkpoint: Path) -> str:
    return checkpoint.name.partition("-")[2]


def _is_state(path: Path) -> bool:
    """Whether a file is the state that Trainer resumes from, and was not cut off by a full disk."""
    try:
        return path.is_file() and isinstance(TrainerState.load_from_json(str(path)).global_step, int)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def _is_whole(checkpoint: Path) -> bool:
    try:
        check_complete(checkpoint)
    except ValueError:
        return False
    return True


def train(settings: RunSettings, folder: Path, is_fresh: bool = False) -> Finished:
    """Run the settings: `native/` and `adapter/` in `folder` are the generator and the plain LoRA adapter.

    Called again with the same settings, it resumes an interrupted run; with `is_fresh`, an earlier run is removed once
    the new one has taken a step.

    Raises:
        BlockingIOError: if another process uses the folder.
        FileExistsError, FileNotFoundError, ValueError, TypeError: for settings, text or a folder that will not do,
            or a finished run that kept no checkpoint, before anything is trained.
        TrainingError: if the training fails, by diverging for instance.
    """
    config = settings.adapter_config()
    data = read_data(settings.data, load_tokenizer(settings.model))
    check_stages(config, settings.n_steps(len(data.train)))
    with started_run(folder, settings, data, is_fresh):
        check_finished(folder)
        callbacks = [CircuitMetricsCallback(), _DiscardEarlier(folder)]
        finished = fit(config, settings, data, folder / "checkpoints", callbacks=callbacks)
        if is_written(folder):
            if not math.isfinite(finished.perplexity):  # else nothing would have been written
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


def _record(finished: Finished, settings: RunSettings, data: TextData) -> RunRecord:
    result = Result("perplexity", finished.perplexity, data.name, data.validation_split)
    known = RunRecord(datasets=[data.name] if data.name else [], results=[result], **settings.record)
    return RunRecord.from_trainer(finished.trainer.args, finished.trainer.state, known)
