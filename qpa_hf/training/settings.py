"""The settings of a run: a YAML file, a recipe, and what the command line changes in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import yaml
from transformers import TrainingArguments

from qpa_hf.messages import one_of, shown
from qpa_hf.model_cards import RunRecord
from qpa_hf.schema import naming
from qpa_hf.training.checks import check_names, check_texts, check_training
from qpa_hf.training.data import DataSettings, Examples
from qpa_hf.training.sections import as_no, as_number, merge, parse_override, read_sections
from qpa_hf.training.tasks import TASKS, Task
from qpa_hf.tuners.qpa import QPAConfig

RECIPES = {path.stem: path for path in sorted(Path(__file__).with_name("recipes").glob("*.yaml"))}
HUB = ("always_push", "model_id", "private_repo", "revision", "strategy", "token")
# What a run decides for itself, where it writes and when among it; and what to do in place of setting it.
OURS = {
    "output_dir": ", and use --output",
    "do_train": "",
    "do_eval": "",
    "do_predict": "",
    "push_to_hub": ", and use `qpa push`",
    **{f"hub_{name}": ", and use `qpa push`" for name in HUB},
    "remove_unused_columns": "",
    "save_only_model": "",
    "resume_from_checkpoint": "; the same command goes on where its run was interrupted",
}
BASIS = "gradient"  # what an adapter stands on where nothing is said: it pays most for its parameters
RANK_ON_GRADIENTS = 16  # of an adapter on gradient bases, whose parameters are r * r a layer and not r * width
TRAINING_DEFAULTS: dict[str, Any] = {
    "learning_rate": 1e-2,
    "lr_scheduler_type": "linear",
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,
    "logging_steps": 0.02,  # shares of the run
    "eval_strategy": "steps",
    "eval_steps": 0.1,
    "save_steps": 0.1,
    "save_total_limit": 2,
    "report_to": "none",
    "seed": 0,
}


@dataclass
class RunSettings:
    """Everything that determines a run.

    Args:
        model: the Hub id or directory of the base model.
        data: the settings of the examples.
        adapter: the fields of `QPAConfig`, on gradient bases if nothing is said; `paper: true` starts from the paper's
            generator.
        training: the fields of `transformers.TrainingArguments`.
        record: what the card is to say of the run: `base_model` (the Hub id of a local one), `license`, `language`.
        task: the kind of run, a key of `TASKS`.
    """

    model: str
    data: DataSettings
    adapter: dict[str, Any]
    training: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    task: str = "text"

    def adapter_fields(self) -> dict[str, Any]:
        """Return the fields of the adapter that are set, by the task or the run."""
        return {**TASKS[self.task].adapter, **self.adapter}

    def adapter_config(self) -> QPAConfig:
        """Return the adapter's configuration.

        Raises:
            ValueError, TypeError: for fields that `QPAConfig` refuses.
        """
        settings = self.adapter_fields()
        is_papers = settings.pop("paper", False)
        if not isinstance(is_papers, bool):
            raise TypeError(f"`adapter.paper`={shown(is_papers)} is not a truth value. Set it to true or false.")
        if is_papers:
            return QPAConfig.paper(**settings)
        return QPAConfig(**settings)

    def n_steps(self, n_examples: int) -> int:
        """Return how many steps one process takes on so many examples, as Trainer counts them."""
        if self.training.get("max_steps", -1) > 0:
            return self.training["max_steps"]
        # A last batch that is not full is a step, and so is a last accumulation of fewer batches.
        n_batches = math.ceil(n_examples / self.training["per_device_train_batch_size"])
        n_steps = math.ceil(n_batches / self.training.get("gradient_accumulation_steps", 1))
        return math.ceil(n_steps * self.training["num_train_epochs"])

    def to_yaml(self) -> str:
        """Return the settings as they are read again."""
        return yaml.safe_dump(asdict(self), sort_keys=False)


def read_settings(
    file: Path | None = None,
    recipe: str | None = None,
    overrides: Iterable[str] = (),
    does_train: bool = True,
    basis: str = BASIS,
    **direct: Any,
) -> RunSettings:
    """Merge settings: recipe, then file, then `section.field=value` overrides, then direct values; later ones win.

    Args:
        file: the YAML file with the sections of `RunSettings`.
        recipe: the name of a recipe, a key of `RECIPES`.
        overrides: texts such as "adapter.r=8"; the value is read as YAML.
        does_train: whether a run follows, which needs a text, and an adapter that it can train.
        basis: what an adapter stands on where no setting says it, nor asks for the paper's generator.
        direct: the values for a section's field, such as `model="gpt2"` or `data={"train": ["book.txt"]}`.

    Raises:
        FileNotFoundError: if `file` is not there.
        ValueError: for an unknown recipe, section or field, a malformed override, a value that cannot be, or if no
            model or text is named.
        TypeError, ImportError: for fields that `QPAConfig` refuses.
    """
    if recipe is not None and recipe not in RECIPES:
        raise ValueError(f"There is no recipe {shown(recipe)}. Choose one of {', '.join(RECIPES)}.")
    merged: dict[str, Any] = {}
    for path in (RECIPES.get(recipe or ""), file):
        if path is not None:
            with naming(path):
                _add(merged, read_sections(path))
    for override in overrides:
        _add(merged, parse_override(override))
    _add(merged, direct)
    run = _checked(merged, does_train, basis)
    if does_train:
        _check_adapter(run)
    return run


def read_data(settings: RunSettings) -> Examples:
    """Read what a run trains and evaluates on.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if the data will not do.
    """
    return TASKS[settings.task].read(settings.data, settings.model)


def _add(merged: dict[str, Any], new: Mapping[str, Any]) -> None:
    check_names(new, [f.name for f in fields(RunSettings)], "A run")
    for section, value in new.items():
        if section not in ("model", "task") and not isinstance(value, Mapping | None):
            raise ValueError(f"`{section}` is {shown(value)}, not a section with fields. Write {section}.field=value.")
    merge(merged, new)


def _checked(values: dict[str, Any], needs_text: bool, basis: str) -> RunSettings:
    task = TASKS[one_of("task", values.get("task") or "text", TASKS)]
    task.check_installed()
    data = {**task.defaults, **(values.get("data") or {})}
    check_names(data, [f.name for f in fields(DataSettings)], "`data`")
    training = values.get("training") or {}
    for name, instead in OURS.items():
        if name in training:
            raise ValueError(f"`training.{name}` is not allowed: the run sets it itself. Leave it out{instead}.")
    allowed = [f.name for f in fields(TrainingArguments) if f.init and f.name not in OURS]
    check_names(training, allowed, "`training`")
    check_names(values.get("record") or {}, ("base_model", "license", "language"), "`record`")
    if not values.get("model"):
        raise ValueError("No base model is named. Set `model` to a Hub id or a directory.")
    if not isinstance(values["model"], str | int):
        raise ValueError(f"`model` is {shown(values['model'])}, not a name. Set it to a Hub id or a directory.")
    texts = {name: value for name, value in data.items() if name != "block_length"}
    check_texts("data", texts, lists=("train", "validation"))
    for name in ("train", "validation"):
        if isinstance(data.get(name), str):
            data[name] = [data[name]]
    settings = DataSettings(**data)
    n_named = bool(settings.train) + bool(settings.dataset)
    if n_named == 2 or needs_text and n_named == 0:
        raise ValueError(
            "Name what to train on by either `data.train` (local files) or `data.dataset` (Hub id or folder)."
        )
    _check_fields(settings, task)
    if settings.dataset and settings.validation:
        raise ValueError(
            "`data.validation` names files, but the rest comes from `data.dataset`. Leave one of them out, or set "
            "`data.validation_split`."
        )
    # YAML reads `1e-3` as a text and a bare `no` as false. Fields that hold numbers or strategies are put right before
    # anything is checked, so that both may be written as people write them.
    numbers = {f.name for f in fields(TrainingArguments) if {int, float} & {f.type, *get_args(f.type)}}
    training = {
        name: as_number(value) if isinstance(value, str) and name in numbers else value
        for name, value in training.items()
    }
    training |= {name: as_no(training[name]) for name in training if name.endswith("_strategy")}
    check_training(training)
    record = dict(values.get("record") or {})
    record |= {name: as_no(record[name]) for name in record if name == "language"}  # Norwegian
    check_texts("record", record, lists=("language",))
    RunRecord(**record)  # refuses what no card could say, before anything is trained
    return RunSettings(
        model=str(values["model"]),
        data=settings,
        adapter=_on_basis({str(name): value for name, value in (values.get("adapter") or {}).items()}, basis),
        training=TRAINING_DEFAULTS | training,
        record=record,
        task=task.name,
    )


def _check_fields(settings: DataSettings, task: Task) -> None:
    """Refuse what only other tasks read."""
    elsewhere = frozenset().union(*(one.fields for one in TASKS.values())) - task.fields
    for f in fields(DataSettings):
        if f.name in elsewhere and getattr(settings, f.name) != f.default:
            raise ValueError(f"`data.{f.name}` means nothing for `--task {task.name}`. Leave it out.")


def _on_basis(adapter: dict[str, Any], basis: str) -> dict[str, Any]:
    """Return an adapter's fields with those that nothing was said of, so that a run's own file has them."""
    if not adapter.get("paper"):
        adapter = {"basis": basis} | adapter
    return {"r": RANK_ON_GRADIENTS} | adapter if adapter.get("basis") == "gradient" else adapter


def _check_adapter(run: RunSettings) -> None:
    """Refuse what the adapter's configuration refuses, before anything is loaded, and what such a run cannot train."""
    config = run.adapter_config()
    n_steps = run.training.get("max_steps", -1)
    n_epochs = run.training["num_train_epochs"]
    if config.inference_mode:
        raise ValueError("`adapter.inference_mode`=True is not allowed: such a run trains. Leave it out.")
    if config.revision is not None:
        raise ValueError(
            f"`adapter.revision`={config.revision!r} is not allowed: such a run loads the base model without it. "
            "Download that revision of the base model, and name its directory as `model`."
        )
    if n_steps == 0 or n_steps < 0 and not n_epochs > 0:
        raise ValueError(
            f"`training.max_steps`={n_steps} and `training.num_train_epochs`={n_epochs} leave nothing to train. Set "
            "one of them above 0."
        )
    task = TASKS[run.task]
    if config.task_type != task.adapter.get("task_type"):
        raise ValueError(
            f"`adapter.task_type`={config.task_type!r} is not allowed: such a run trains {task.trains}. Leave it out, "
            "or use QPAConfig with a Trainer of your own."
        )
    if n_steps > 0:  # how many steps the epochs have is known when the text is read
        check_stages(config, n_steps)


def check_stages(config: QPAConfig, n_steps: int) -> None:
    """Raise ValueError if a run has fewer steps than its adapter has stages."""
    if n_steps < config.n_stages:
        raise ValueError(
            f"A run of {n_steps} step(s) is too short for {config.n_stages} stages, each of which needs one. "
            "Train longer, with `training.max_steps` or `training.num_train_epochs`, or set `adapter.n_stages` to "
            f"{n_steps} or less."
        )
