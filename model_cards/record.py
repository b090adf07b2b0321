"""What a training run recorded, kept as `qpa_run.json` beside an adapter; cards are filled from it."""

from __future__ import annotations

import dataclasses
import os
import platform
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from qpa_hf.checkpoint import NOT_FINITE, to_json
from qpa_hf.messages import one_line, shown
from qpa_hf.model_cards.program import is_hub_id
from qpa_hf.schema import check_kinds, parse_object, read_text

RECORD_NAME = "qpa_run.json"
Part = TypeVar("Part")
PACKAGES = ("qpa-hf", "peft", "transformers", "torch", "accelerate", "datasets")
# Named one by one: a dump of all arguments would publish paths, and the Hub token among them.
ALWAYS = ("learning_rate", "lr_scheduler_type", "optim", "seed")
IF_CHANGED = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "data_seed",
    "fp16",
    "label_smoothing_factor",
    "lr_scheduler_kwargs",
    "max_grad_norm",
    "neftune_noise_alpha",
    "optim_args",
    "warmup_steps",
    "weight_decay",
)
NUMBERS = ("value", "epochs", "train_loss", "train_seconds")
TIMING = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


@dataclass
class Result:
    """One evaluation result.

    Args:
        metric: its identifier, such as "loss" or "perplexity".
        value: the number found.
        dataset: what it was measured on.
        split: which part of the dataset.
        name: the metric's name for people, if the identifier is not enough.

    Example:
        >>> Result("perplexity", 34.95, "Salesforce/wikitext", "validation").metric
        'perplexity'
    """

    metric: str
    value: float
    dataset: str | None = None
    split: str | None = None
    name: str | None = None


@dataclass
class Control:
    """The same run with another source in the circuits' place, under the same metric.

    Args:
        source: the control, such as "random" or "bits" (`QPAConfig.source`), or "frozen angles".
        metric: identifier of a metric that is among the run's own results.
        value: the number the control reached.

    Example:
        >>> record = RunRecord(results=[Result("loss", 3.55)], control=Control("random", "loss", 3.57))
        >>> record.control.value
        3.57
    """

    source: str
    metric: str
    value: float


@dataclass
class RunRecord:
    """What is known of a run; a card says nothing beyond it and the adapter's configuration.

    Args:
        repo_id: where the adapter will be published, if known; the card then loads it from there.
        base_model: Hub id of the base model, where the run loaded it from a folder that does not tell.
        datasets: Hub ids of the training data.
        labels: names of the classes, in the order of a classifier's outputs.
        task: the Hub's name of the task, where PEFT has no type for it.
        license: identifier of the adapter's licence, as the Hub knows it.
        language: language codes of the training data.
        results: evaluation results.
        control: the control's result.
        hyperparameters: training settings by name.
        versions: packages by name.
        steps: optimizer steps.
        epochs: passes over the training data.
        train_loss: mean training loss since the training's last start.
        train_seconds: duration of the training since its last start.
        commit: revision of the code that ran.

    Example:
        >>> record = RunRecord(datasets="me/books", license="cc0-1.0", results=[Result("loss", 3.55)])
        >>> RunRecord.from_json(record.to_json()) == record
        True
    """

    repo_id: str | None = None
    base_model: str | None = None
    datasets: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    task: str | None = None
    license: str | None = None
    language: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    control: Control | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    steps: int | None = None
    epochs: float | None = None
    train_loss: float | None = None
    train_seconds: float | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        self.datasets, self.language = _listed(self.datasets), _listed(self.language)
        if self.base_model is not None and not is_hub_id(self.base_model):
            raise ValueError(
                f"`base_model`={shown(self.base_model)} is no Hub id. Name it as owner/name, or leave it out."
            )

    @classmethod
    def from_trainer(
        cls,
        args: Any,
        state: Any,
        known: RunRecord | None = None,
        *,
        step: int | None = None,
        evaluated_on: tuple[str, str | None] | None = None,
    ) -> RunRecord:
        """Return what Trainer recorded, beside what is `known` already.

        Args:
            args: the `TrainingArguments`.
            state: the `TrainerState`, of which the log history and the counts are read.
            known: facts that Trainer does not have: datasets, licence, results of its own, a control.
            step: the step whose weights are meant; if None, those that the model has after training (the best ones
                under `load_best_model_at_end`).
            evaluated_on: dataset and split of Trainer's evaluations.
        """
        known = known or cls()
        end = _after_training(state.log_history) if step is None else []
        step = _final_step(args, state) if step is None else step
        rows = [row for row in state.log_history if row.get("step") == step]
        dataset, split = evaluated_on or (None, None)
        found = _evaluations(end) or _evaluations(rows)
        results = [Result(name, value, dataset, split) for name, value in found.items()]
        summary = end[0] if end else {}
        return dataclasses.replace(
            known,
            results=[*known.results, *results],
            hyperparameters=_hyperparameters(args) | known.hyperparameters,
            versions=_versions() | known.versions,
            steps=step,
            epochs=next((row["epoch"] for row in rows if "epoch" in row), state.epoch),
            train_loss=summary.get("train_loss"),
            train_seconds=summary.get("train_runtime"),
        )

    def to_json(self) -> str:
        """Return the record as JSON, without what is not known."""
        known = {name: value for name, value in asdict(self).items() if value not in (None, [], {})}
        return to_json(known) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """Return the record that `to_json` wrote.

        Raises:
            ValueError: if the text is not such a record.
        """
        try:
            values = parse_object(text, "The text")
            values |= {name: _listed(values[name]) for name in ("datasets", "language") if name in values}
            parts: dict[str, Any] = {}
            if isinstance(results := values.get("results"), list):
                parts["results"] = [_read(Result, result) for result in results]
            if control := values.get("control"):
                parts["control"] = _read(Control, control)
            return _read(cls, values, **parts)
        except (TypeError, ValueError) as error:
            known = ", ".join(f.name for f in fields(cls))
            raise ValueError(f"This is no record of a run ({one_line(error)}). Its fields are {known}.") from error

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> RunRecord | None:
        """Return the record beside an adapter, or None if there is none.

        Raises:
            ValueError: naming the file, if it is not a record.
        """
        path = Path(folder) / RECORD_NAME
        if not path.is_file():
            return None
        try:
            return cls.from_json(read_text(path))
        except ValueError as error:
            raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


def _listed(names: list[str] | str) -> list[str]:
    return [names] if isinstance(names, str) else names


def _read(kind: type[Part], values: Any, **changes: Any) -> Part:
    """Return a record, or a part of one, of the values that JSON has, where numbers that are not finite have names."""
    if not isinstance(values, dict):
        raise TypeError(f"{shown(values)} is no {kind.__name__}")
    named = {name: float(value) for name, value in values.items() if name in NUMBERS and value in NOT_FINITE}
    others = {name: value for name, value in values.items() if name not in named}
    check_kinds(others, kind)
    return kind(**others | named | changes)


def _final_step(args: Any, state: Any) -> int:
    """Return the step of the weights that training left in the model."""
    if args.load_best_model_at_end and state.best_model_checkpoint:
        return int(Path(state.best_model_checkpoint).name.rpartition("-")[2])
    return state.global_step


def _after_training(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the log rows from the last summary of a whole training on; none before training has ended."""
    ends = [i for i, row in enumerate(history) if "train_runtime" in row]
    return history[ends[-1] :] if ends else []


def _evaluations(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the evaluation metrics of log rows, the last of each name, without timings."""
    found = {key.removeprefix("eval_"): row[key] for row in rows for key in row if key.startswith("eval_")}
    numbers = {name: v for name, v in found.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {name: value for name, value in numbers.items() if not name.endswith(TIMING)}


def _hyperparameters(args: Any) -> dict[str, Any]:
    defaults = {f.name: f.default for f in fields(args)}
    changed = [name for name in IF_CHANGED if getattr(args, name) != defaults[name]]
    values = {name: getattr(args, name) for name in (*ALWAYS, *changed)}
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    plain = {name: getattr(value, "value", value) for name, value in values.items()}  # enums by their value
    return plain | {"total_batch_size": batch}


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
