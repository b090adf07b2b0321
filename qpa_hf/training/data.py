"""Where a run's examples come from: local files or a dataset; and what is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import load_dataset
from datasets.exceptions import DatasetBuildError, DatasetsError

from qpa_hf.messages import first_sentence

VALIDATION_SHARE = 10  # one example in so many is evaluated on, where nothing is named for it

# What to do, by a part of what `datasets` says.
ADVICE = {
    "Unknown split": "Set `data.train_split` and `data.validation_split` to splits that it has.",
    "BuilderConfig": "Set `data.dataset_config` to one that it has.",
    "Config name is missing": "Set `data.dataset_config`.",
    "scripts are no longer supported": "Save what the script makes as JSON or Parquet files, and name these.",
}


@dataclass
class DataSettings:
    """Where the examples come from: local files, or a dataset.

    Args:
        train: the local files to train on: text, or tables (JSON, CSV, Parquet); of pictures, folders of classes.
        validation: the local files to evaluate on; if empty, a tenth of the training examples.
        dataset: the Hub id or local folder of a dataset, in place of files.
        dataset_config: the name of the dataset's configuration.
        text_column: the column of a dataset or a table that holds the text.
        label_column: the column that holds the class of a row.
        image_column: the column of a dataset that holds the picture.
        train_split: the split to train on.
        validation_split: the split to evaluate on.
        block_length: the number of tokens of each block of text; the most tokens of any other example.
    """

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    dataset: str | None = None
    dataset_config: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    image_column: str = "image"
    train_split: str = "train"
    validation_split: str = "validation"
    block_length: int = 128


@dataclass(frozen=True)
class Naming:
    """What messages call the settings that name the examples: of a run, or of a command's options.

    Args:
        files: the setting that names the files.
        text: the one that names the column of text.
        label: the one that names the column of classes.
        length: the one that says how many tokens an example has.
    """

    files: str = "`data.train` and `data.validation`"
    text: str = "`data.text_column`"
    label: str = "`data.label_column`"
    length: str = "data.block_length"


@dataclass(frozen=True)
class Examples:
    """Examples to train on and to evaluate on, as their task has read them.

    Args:
        train: the examples to train on; of text, token ids of shape (n_blocks, block_length).
        validation: the examples to evaluate on, none of which is trained on.
        name: the name of the data in a model card; None for local files.
        validation_split: the part of the data that the validation examples are.
        labels: the names of the classes, in the order of the model's outputs; none without classes.
        reader: what makes a model's inputs of raw ones: a tokenizer, or an image processor.
    """

    train: Any
    validation: Any
    name: str | None
    validation_split: str
    labels: tuple[str, ...] = ()
    reader: Any = None


def check_enough(n_train: int, unit: str) -> None:
    """Raise ValueError if no tenth of the training examples can be evaluated on."""
    if n_train < VALIDATION_SHARE:
        raise ValueError(
            f"There are {n_train} {unit} to train on, but a tenth of them is to be evaluated on. Use more "
            f"({VALIDATION_SHARE} {unit}), or name `data.validation`."
        )


def name_of(settings: DataSettings) -> str | None:
    """Return the name of a dataset for a card; a path is nobody else's business."""
    return None if settings.dataset is None or Path(settings.dataset).exists() else settings.dataset


def parts_of(settings: DataSettings) -> tuple[Sequence[str], Sequence[str]]:
    """Return what to train on and what to evaluate on: splits of a dataset, or files; of the latter maybe none."""
    if settings.dataset is not None:
        return (settings.train_split,), (settings.validation_split,)
    return settings.train, settings.validation


def validation_part(settings: DataSettings) -> str:
    """Return what the examples that are named to be evaluated on are called in a card."""
    return settings.validation_split if settings.dataset is not None else "validation files"


def split_name(settings: DataSettings, split: str) -> str:
    """Return what a split of a dataset is called in messages."""
    return f"the split `{split}` of the dataset {settings.dataset}"


def load_split(settings: DataSettings, split: str) -> Any:
    """Return one split of the dataset.

    Raises:
        ValueError: if the dataset is damaged or lacks the split, or is a file.
    """
    what = split_name(settings, split).removeprefix("the ")
    if Path(str(settings.dataset)).is_file():
        raise ValueError(
            f"{settings.dataset} is a file. Name it by `data.train`, or name a dataset's folder or Hub id."
        )
    try:
        return load_dataset(settings.dataset, settings.dataset_config, split=split)
    except (DatasetBuildError, StopIteration) as error:  # the second of a file without a line
        cause: Any = error.__cause__ or error
        reason = first_sentence(cause) or "a file is empty"
        raise ValueError(f"The {what} cannot be read ({reason}). Correct its files.") from error
    except (DatasetsError, FileNotFoundError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        advice = next((advice for words, advice in ADVICE.items() if words in reason), "Check `data.dataset`.")
        raise ValueError(f"The {what} cannot be read ({reason}). {advice}") from error
