"""Plain text, in blocks of tokens: every token is predicted from those before it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from qpa_hf.evaluation import perplexity, text_blocks
from qpa_hf.evaluation.documents import COLUMN_SETTING, Text, check_apart, read_files
from qpa_hf.evaluation.generation import beside_base
from qpa_hf.evaluation.tables import texts_of
from qpa_hf.messages import whole_number
from qpa_hf.training.base import check_fit, load_tokenizer
from qpa_hf.training.data import (
    VALIDATION_SHARE,
    DataSettings,
    Examples,
    Naming,
    load_split,
    name_of,
    parts_of,
    split_name,
    validation_part,
)
from qpa_hf.training.tasks.metrics import PERPLEXITY
from qpa_hf.training.tasks.task import Task

N_PROMPT = 16  # tokens of the first validation block that a sample goes on from


class TextTask(Task):
    """A causal language model on text files or a column of text."""

    name = "text"
    unit = "blocks"
    adapter = {"task_type": "CAUSAL_LM"}
    fields = frozenset({"text_column"})
    trains = "causal language models"
    metrics = listed = (PERPLEXITY,)
    criterion = PERPLEXITY
    is_language = True

    def read(self, settings: DataSettings, model: str) -> Examples:
        tokenizer = load_tokenizer(model)
        length = whole_number("data.block_length", settings.block_length, least=2)
        train, validation = (_texts(settings, part) for part in parts_of(settings))
        if validation:
            check_apart(train, validation)
            first, second = (text_blocks(tokenizer, _documents(texts), length) for texts in (train, validation))
            return Examples(first, second, name_of(settings), validation_part(settings), reader=tokenizer)
        check_apart(train[:-1], train[-1:])  # whose end is evaluated on
        first, second = _parted(text_blocks(tokenizer, _documents(train), length))
        return Examples(first, second, None, "last tenth of the training text", reader=tokenizer)

    def read_held_out(self, settings: DataSettings, model: str, labels: Sequence[str], naming: Naming) -> Examples:
        texts = read_files(settings.validation, naming.files, settings.text_column, naming.text)
        tokenizer = load_tokenizer(model)
        blocks = text_blocks(tokenizer, _documents(texts), whole_number(naming.length, settings.block_length, least=2))
        return Examples(blocks[:0], blocks, None, naming.files, reader=tokenizer)

    def fingerprint(self, data: Examples) -> str:
        found = hashlib.sha256()
        for blocks in (data.train, data.validation):
            found.update(str(tuple(blocks.shape)).encode())
            found.update(blocks.contiguous().numpy().data)
        return found.hexdigest()

    def empty(self, model: str, data: Examples) -> nn.Module:
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))

    def load(self, model: str, data: Examples, config: PeftConfig | None = None) -> Any:
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def check(self, base: Any, model: str, data: Examples, option: str) -> None:
        last = max(int(blocks.max()) for blocks in (data.train, data.validation) if len(blocks))
        check_fit(base, model, last, data.validation.shape[1], option)

    def rows(self, examples: Tensor, data: Examples) -> list[dict[str, Tensor]]:
        return [_row(block) for block in examples]

    def evaluate(self, model: Any, examples: Tensor, data: Examples, progress: bool = False) -> dict[str, float]:
        return {"perplexity": perplexity(model, examples, progress=progress)}

    def loss_of(self, metrics: Mapping[str, float]) -> float:
        return math.log(metrics["perplexity"])

    def tuning(self, data: Examples, share: int) -> Examples:
        # The end again, as for the validation text.
        n = max(1, len(data.train) // share)
        return replace(data, train=data.train[:-n], validation=data.train[-n:], validation_split="development")

    def describe(self, data: Examples, settings: DataSettings) -> str:
        return (
            f"Text: {len(data.train):,} blocks of {settings.block_length} tokens to train on, "
            f"{len(data.validation):,} to evaluate on ({data.validation_split})"
        )

    def counted(self, found: Mapping[str, Any]) -> str:
        return f"{found['predicted_tokens']:,} predicted tokens, no padding"

    def sample(self, model: Any, data: Examples) -> dict[str, str]:
        return beside_base(model, data.reader, data.validation[0][:N_PROMPT].tolist())


def _texts(settings: DataSettings, part: Any) -> list[Text]:
    if settings.dataset is None:
        return read_files(part, Naming.files, settings.text_column)
    found = []
    for split in part:
        what = split_name(settings, split)
        texts = texts_of(load_split(settings, split), settings.text_column, what, COLUMN_SETTING)
        found.append(Text(what, texts))
    return found


def _documents(texts: list[Text]) -> list[str]:
    return [document for text in texts for document in text.documents]


def _parted(train: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the last blocks to evaluate on."""
    # The end of the text, and not blocks from all over it: the neighbours of a block say much of what is in it.
    n_validation = len(train) // VALIDATION_SHARE
    if n_validation == 0:
        raise ValueError(
            f"The text fills {len(train)} blocks of {train.shape[1]} tokens, but a tenth of them is to be evaluated "
            f"on. Use more text ({VALIDATION_SHARE} blocks), a smaller `data.block_length`, or name `data.validation`."
        )
    return train[:-n_validation], train[-n_validation:]


def _row(block: Tensor) -> dict[str, Tensor]:
    """Return a block as Trainer takes it: its first token is predicted from nothing, and counts in no mean."""
    labels = block.clone()
    labels[0] = -100
    return {"input_ids": block, "attention_mask": torch.ones_like(block), "labels": labels}
