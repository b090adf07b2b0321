"""A run's text, as blocks of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import load_dataset
from datasets.exceptions import DatasetBuildError, DatasetsError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qpa_hf.evaluation import text_blocks
from qpa_hf.evaluation.documents import COLUMN_SETTING, Text, check_apart, read_files
from qpa_hf.evaluation.tables import texts_of
from qpa_hf.messages import first_sentence, whole_number
from qpa_hf.training.settings import DataSettings

VALIDATION_SHARE = 10  # one block in so many, the last ones, where no validation text is named

# What to do, by a part of what `datasets` says.
ADVICE = {
    "Unknown split": "Set `data.train_split` and `data.validation_split` to splits that it has.",
    "BuilderConfig": "Set `data.dataset_config` to one that it has.",
    "Config name is missing": "Set `data.dataset_config`.",
    "scripts are no longer supported": "Save what the script makes as JSON or Parquet files, and name these.",
}


@dataclass(frozen=True)
class TextData:
    """Blocks to train on and to evaluate on.

    Args:
        train: the token ids to train on, shape (n_blocks, block_length).
        validation: the token ids to evaluate on, of other text, shape (n_blocks, block_length).
        name: the name of the text in a model card; None for local files.
        validation_split: the part of the text that the validation blocks are.
    """

    train: Tensor
    validation: Tensor
    name: str | None
    validation_split: str


def read_data(settings: DataSettings, tokenizer: PreTrainedTokenizerBase) -> TextData:
    """Read the text and cut it into blocks.

    Raises:
        OSError: if a local file is missing or cannot be read.
        ValueError: if a text is empty, is none, or is shorter than a block; if the text to evaluate on is trained on;
            or if the dataset is damaged or lacks the split or the column.
    """
    length = whole_number("data.block_length", settings.block_length, least=2)
    if settings.dataset is not None:
        train, validation = ([_split(settings, name)] for name in (settings.train_split, settings.validation_split))
        name = None if Path(settings.dataset).exists() else settings.dataset  # a path is nobody else's business
        part = settings.validation_split
    else:
        train = _files(settings, settings.train)
        validation = _files(settings, settings.validation)
        name = None
        part = "validation files"
    if validation:
        check_apart(train, validation)
        blocks = [text_blocks(tokenizer, _documents(texts), length) for texts in (train, validation)]
        return TextData(blocks[0], blocks[1], name, part)
    check_apart(train[:-1], train[-1:])  # whose end is evaluated on
    return _parted(text_blocks(tokenizer, _documents(train), length))


def _documents(texts: list[Text]) -> list[str]:
    return [document for text in texts for document in text.documents]


def _parted(train: Tensor) -> TextData:
    """Keep the last blocks to evaluate on."""
    # The end of the text, and not blocks from all over it: the neighbours of a block say much of what is in it.
    n_validation = len(train) // VALIDATION_SHARE
    if n_validation == 0:
        raise ValueError(
            f"The text fills {len(train)} blocks of {train.shape[1]} tokens, but a tenth of them is to be evaluated "
            f"on. Use more text ({VALIDATION_SHARE} blocks), a smaller `data.block_length`, or name `data.validation`."
        )
    return TextData(train[:-n_validation], train[-n_validation:], None, "last tenth of the training text")


def _files(settings: DataSettings, names: list[str]) -> list[Text]:
    return read_files(names, "`data.train` and `data.validation`", settings.text_column)


def _split(settings: DataSettings, split: str) -> Text:
    what = f"split `{split}` of the dataset {settings.dataset}"
    if Path(str(settings.dataset)).is_file():
        raise ValueError(
            f"{settings.dataset} is a file. Name it by `data.train`, or name a dataset's folder or Hub id."
        )
    try:
        dataset = load_dataset(settings.dataset, settings.dataset_config, split=split)
    except (DatasetBuildError, StopIteration) as error:  # the second of a file without a line
        cause: Any = error.__cause__ or error
        reason = first_sentence(cause) or "a file is empty"
        raise ValueError(f"The {what} cannot be read ({reason}). Correct its files.") from error
    except (DatasetsError, FileNotFoundError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        advice = next((advice for words, advice in ADVICE.items() if words in reason), "Check `data.dataset`.")
        raise ValueError(f"The {what} cannot be read ({reason}). {advice}") from error
    return Text(f"the {what}", texts_of(dataset, settings.text_column, f"the {what}", COLUMN_SETTING))
