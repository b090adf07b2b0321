"""The settings of a run: a YAML file, a recipe, and what the command line changes in them."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import yaml
from transformers import TrainingArguments

from qpa_hf.tuner import QPAConfig

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
LEAST = {  # which torch and Trainer would find out after the model is loaded
    "learning_rate": 0,
    "num_train_epochs": 0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
}
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
class DataSettings:
    """Where the text comes from: local files, or a dataset on the Hub.

    Args:
        train: local text files to train on.
        validation: local text files to evaluate on; if empty, the last tenth of the training blocks.
        dataset: Hub id or local folder of a dataset, in place of files.
        dataset_config: its configuration.
        text_column: the column that holds the text.
        train_split: the split to train on.
        validation_split: the split to evaluate on.
        block_length: tokens per block.
    """

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    dataset: str | None = None
    dataset_config: str | None = None
    text_column: str = "text"
    train_split: str = "train"
    validation_split: str = "validation"
    block_length: int = 128


@dataclass
class RunSettings:
    """Everything that determines a run.

    Args:
        model: Hub id or directory of the base model.
        data: where the text comes from.
        adapter: fields of `QPAConfig`; `paper: true` starts from the paper's generator.
        training: fields of `transformers.TrainingArguments`.
        record: what the model card says of the run: `license`, `language`.
    """

    model: str
    data: DataSettings
    adapter: dict[str, Any]
    training: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)

    def adapter_config(self) -> QPAConfig:
        """Return the adapter's configuration.

        Raises:
            ValueError, TypeError: for fields that `QPAConfig` refuses.
        """
        settings = {"task_type": "CAUSAL_LM"} | self.adapter
        is_papers = settings.pop("paper", False)
        if not isinstance(is_papers, bool):
            raise TypeError(f"`adapter.paper`={is_papers!r} is not a truth value. Set it to true or false.")
        if is_papers:
            return QPAConfig.paper(**settings)
        return QPAConfig(**settings)

    def n_steps(self, n_blocks: int) -> int:
        """Return how many steps one process takes on so many blocks of text, as Trainer counts them."""
        if self.training.get("max_steps", -1) > 0:
            return self.training["max_steps"]
        n_batches = math.ceil(n_blocks / self.training["per_device_train_batch_size"])
        n_steps = math.ceil(n_batches / self.training.get("gradient_accumulation_steps", 1))
        return math.ceil(n_steps * self.training["num_train_epochs"])

    def to_yaml(self) -> str:
        """Return the settings as they are read again."""
        return yaml.safe_dump(asdict(self), sort_keys=False)


def read_settings(
    file: Path | None = None, recipe: str | None = None, overrides: Iterable[str] = (), **direct: Any
) -> RunSettings:
    """Put settings together: recipe, then file, then `section.field=value` overrides, then direct values.

    Args:
        file: a YAML file with the sections of `RunSettings`.
        recipe: a key of `RECIPES`.
        overrides: texts such as "adapter.r=8"; the value is read as YAML.
        direct: values for a section's field, such as `model="gpt2"` or `data={"train": ["book.txt"]}`.

    Raises:
        FileNotFoundError: if `file` is not there.
        ValueError: for an unknown recipe, section or field, a malformed override, a value that cannot be, or if no
            model or text is named.
        TypeError, ImportError: for fields that `QPAConfig` refuses.
    """
    if recipe is not None and recipe not in RECIPES:
        raise ValueError(f"There is no recipe {recipe!r}. Choose one of {', '.join(RECIPES)}.")
    merged: dict[str, Any] = {}
    for path in (RECIPES.get(recipe or ""), file):
        if path is not None:
            _add(merged, _read_yaml(path))
    for override in overrides:
        _add(merged, _parse(override))
    _add(merged, direct)
    return _checked(merged)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Name a YAML file of settings, or one of the recipes.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}). Convert it.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, not sections such as `model:` and `data:`.")
    return values


def _parse(override: str) -> dict[str, Any]:
    name, equals, value = override.partition("=")
    section, _, key = name.partition(".")
    if not equals or not section:
        raise ValueError(f"`{override}` is no setting. Write section.field=value, for example adapter.r=8.")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"The value of `{override}` is not YAML. Close its brackets and quotes.") from error
    if isinstance(parsed, str):
        parsed = _number(parsed)
    return {section: {key: parsed}} if key else {section: parsed}


def _number(text: str) -> Any:
    """YAML takes 1e-3 for a text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _add(merged: dict[str, Any], new: Mapping[str, Any]) -> None:
    check_names(new, [f.name for f in fields(RunSettings)], "A run")
    for section, value in new.items():
        if section != "model" and not isinstance(value, Mapping | None):
            raise ValueError(f"`{section}` is {value!r}, not a section with fields. Write {section}.field=value.")
    _merge(merged, new)


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def check_names(given: Iterable[str], known: Iterable[str], where: str, kind: str = "field") -> None:
    """Raise a ValueError for the first name that is not known, with the nearest that is.

    Args:
        given: names.
        known: those that there are.
        where: what has them, for the message.
        kind: what they name, likewise.
    """
    known = list(known)
    for name in map(str, given):  # YAML's keys may be numbers, or true for a bare `on`
        if name not in known:
            by_lower = {one.lower(): one for one in known}
            near = difflib.get_close_matches(name.lower(), by_lower, 1)
            hint = f"Did you mean `{by_lower[near[0]]}`?" if near else f"Known are {'; '.join(sorted(known))}."
            raise ValueError(f"{where} has no {kind} `{name}`. {hint}")


def _checked(values: dict[str, Any]) -> RunSettings:
    data = dict(values.get("data") or {})
    check_names(data, [f.name for f in fields(DataSettings)], "`data`")
    training = values.get("training") or {}
    for name, instead in OURS.items():
        if name in training:
            raise ValueError(f"`training.{name}` is not allowed: the run sets it itself. Leave it out{instead}.")
    allowed = [f.name for f in fields(TrainingArguments) if f.init and f.name not in OURS]
    check_names(training, allowed, "`training`")
    check_names(values.get("record") or {}, ("license", "language"), "`record`")
    if not values.get("model"):
        raise ValueError("No base model is named. Set `model` to a Hub id or a directory.")
    texts = {name: value for name, value in data.items() if name != "block_length"}
    _check_texts("data", texts, lists=("train", "validation"))
    for name in ("train", "validation"):
        if isinstance(data.get(name), str):
            data[name] = [data[name]]
    settings = DataSettings(**data)
    if bool(settings.train) == bool(settings.dataset):
        raise ValueError(
            "Name the text to train on by either `data.train` (local files) or `data.dataset` (Hub id or folder)."
        )
    if settings.dataset and settings.validation:
        raise ValueError(
            "`data.validation` names files, but the text comes from `data.dataset`. Leave one of them out, or set "
            "`data.validation_split`."
        )
    numbers = {f.name for f in fields(TrainingArguments) if {int, float} & {f.type, *get_args(f.type)}}
    training = {
        name: _number(value) if isinstance(value, str) and name in numbers else value
        for name, value in training.items()
    }
    training |= {name: _no(training[name]) for name in training if name.endswith("_strategy")}
    _check_kinds(training)
    record = dict(values.get("record") or {})
    record |= {name: _no(record[name]) for name in record if name == "language"}  # Norwegian
    _check_texts("record", record, lists=("language",))
    run = RunSettings(
        model=str(values["model"]),
        data=settings,
        adapter={str(name): value for name, value in (values.get("adapter") or {}).items()},
        training=TRAINING_DEFAULTS | training,
        record=record,
    )
    _check_adapter(run)
    return run


def _no(value: Any) -> Any:
    """YAML takes a bare `no` for false."""
    if isinstance(value, list):
        return [_no(item) for item in value]
    return "no" if value is False else value


def _check_texts(section: str, values: Mapping[str, Any], lists: Iterable[str]) -> None:
    """Refuse what is neither a text nor, for the fields in `lists`, a list of texts; null is left."""
    for name, value in values.items():
        has_list = name in lists
        items = value if has_list and isinstance(value, list) else [value]
        if value is not None and not all(isinstance(item, str) for item in items):
            allowed = "a name (text) or a list of names" if has_list else "a name (text)"
            raise ValueError(f"`{section}.{name}`={value!r} is not allowed. Set it to {allowed}.")


def _check_adapter(run: RunSettings) -> None:
    """Refuse what the adapter's configuration refuses, before anything is loaded, and what such a run cannot train."""
    config = run.adapter_config()
    n_steps, n_epochs = run.training.get("max_steps", -1), run.training["num_train_epochs"]
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
    if config.task_type != "CAUSAL_LM":
        raise ValueError(
            f"`adapter.task_type`={config.task_type!r} is not allowed: such a run trains causal language models. "
            "Leave it out, or use QPAConfig with a Trainer of your own."
        )
    if n_steps > 0:  # how many steps the epochs have is known when the text is read
        check_stages(config, n_steps)


def check_stages(config: QPAConfig, n_steps: int) -> None:
    """Raise ValueError if a run has fewer steps than its adapter has stages."""
    if n_steps < config.n_stages:
        raise ValueError(
            f"A run of so few steps ({n_steps}) leaves no step for some of the {config.n_stages} stages. Train for "
            "more, by `training.max_steps` or `training.num_train_epochs`, or set `adapter.n_stages` to "
            f"{n_steps} or less."
        )


def check_least(name: str, value: Any) -> None:
    """Raise ValueError if a number of `TrainingArguments` is infinite or too small; another kind of value is left."""
    least = LEAST[name]
    if isinstance(value, int | float) and not least <= value < math.inf:
        raise ValueError(f"`training.{name}`={value!r} is not allowed. Set it to a finite number from {least} on.")


def _check_kinds(training: Mapping[str, Any]) -> None:
    """Refuse values of the wrong kind or range: Trainer would find out after the model is loaded."""
    for name in LEAST:
        check_least(name, training.get(name))
    metric = training.get("metric_for_best_model")
    if metric not in (None, "loss", "eval_loss"):
        raise ValueError(
            f"`training.metric_for_best_model`={metric!r} is not allowed: such a run evaluates nothing but the loss. "
            "Set it to loss, or leave it out."
        )
    for f in fields(TrainingArguments):
        value, kinds = training.get(f.name, f.default), {f.type, *get_args(f.type)}
        if value is None and isinstance(f.default, int | float):
            raise ValueError(f"`training.{f.name}`=null is not allowed. Set it to a value, or leave it out.")
        if isinstance(value, float) and f.type is int:
            raise ValueError(f"`training.{f.name}`={value!r} is not allowed. Set it to a whole number.")
        has_other_kinds = str in kinds or kinds.isdisjoint({bool, int, float})
        if not has_other_kinds and not isinstance(value, bool | int | float | None):
            kind = "true or false" if bool in kinds else "a number"
            raise ValueError(f"`training.{f.name}`={value!r} is not allowed. Set it to {kind}.")
