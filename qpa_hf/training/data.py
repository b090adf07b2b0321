"""A run's text, as blocks of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qpa_hf.evaluation import read_texts, text_blocks
from qpa_hf.training.settings import DataSettings
from qpa_hf.tuner.refusals import first_sentence
from qpa_hf.whole_number import whole_number

VALIDATION_SHARE = 10  # one block in so many, the last ones, where no validation text is named


@dataclass(frozen=True)
class TextData:
    """Blocks to train on and to evaluate on.

    Args:
        train: token ids, shape (n_blocks, block_length).
        validation: the same, of other text.
        name: what the text is called in a model card; None for local files.
        validation_split: which part the validation blocks are.
    """

    train: Tensor
    validation: Tensor
    name: str | None
    validation_split: str


def read_data(settings: DataSettings, tokenizer: PreTrainedTokenizerBase) -> TextData:
    """Read the text and cut it into blocks.

    Raises:
        FileNotFoundError: if a local file is missing.
        ValueError: if a text is empty or shorter than a block, or the dataset is damaged or lacks the split or the
            column.
    """
    length = whole_number("data.block_length", settings.block_length, least=2)
    if settings.dataset is not None:
        splits = [_split(settings, name) for name in (settings.train_split, settings.validation_split)]
        blocks = [text_blocks(tokenizer, texts, length) for texts in splits]
        name = None if Path(settings.dataset).exists() else settings.dataset  # a path is nobody else's business
        return TextData(blocks[0], blocks[1], name, settings.validation_split)
    train = text_blocks(tokenizer, _files(settings.train), length)
    if settings.validation:
        return TextData(train, text_blocks(tokenizer, _files(settings.validation), length), None, "validation files")
    n_validation = len(train) // VALIDATION_SHARE
    if n_validation == 0:
        raise ValueError(
            f"The text fills {len(train)} blocks of {length} tokens, but a tenth of them is to be evaluated on. Use "
            f"more text ({VALIDATION_SHARE} blocks), a smaller `data.block_length`, or name `data.validation`."
        )
    return TextData(train[:-n_validation], train[-n_validation:], None, "last tenth of the training text")


def _files(names: list[str]) -> list[str]:
    return read_texts(names, "`data.train` and `data.validation`")


def _split(settings: DataSettings, split: str) -> list[str]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetBuildError

    try:
        dataset = load_dataset(settings.dataset, settings.dataset_config, split=split)
    except (DatasetBuildError, StopIteration) as error:  # the second of a file without a line
        cause: Any = error.__cause__ or error
        reason = first_sentence(cause) or "a file is empty"
        raise ValueError(
            f"The split `{split}` of the dataset {settings.dataset} cannot be read ({reason}). Correct its files."
        ) from error
    if settings.text_column not in dataset.column_names:
        raise ValueError(
            f"The dataset {settings.dataset} has no column `{settings.text_column}`. Set `data.text_column` to one of "
            f"{', '.join(dataset.column_names)}."
        )
    texts = [text for text in dataset[settings.text_column] if text is not None]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(
                f"The column `{settings.text_column}` of {settings.dataset} holds {type(text).__name__}, not text. "
                f"Set `data.text_column` to another one of {', '.join(dataset.column_names)}."
            )
    return texts
