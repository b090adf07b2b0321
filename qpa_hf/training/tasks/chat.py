"""Conversations: the assistant's answers are predicted, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftConfig
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

from qpa_hf.evaluation.content import read_bytes
from qpa_hf.evaluation.documents import Text, check_apart
from qpa_hf.evaluation.generation import beside_base
from qpa_hf.evaluation.perplexity import labelled_perplexity
from qpa_hf.evaluation.tables import TABLES, open_table
from qpa_hf.messages import whole_number
from qpa_hf.terminal import say
from qpa_hf.training.base import check_fit, load_tokenizer
from qpa_hf.training.data import (
    DataSettings,
    Examples,
    Naming,
    load_split,
    name_of,
    parts_of,
    split_name,
    validation_part,
)
from qpa_hf.training.tasks.conversations import conversations_of, encoded, prompt_of
from qpa_hf.training.tasks.labels import parted
from qpa_hf.training.tasks.metrics import PERPLEXITY
from qpa_hf.training.tasks.task import Task, Uncompared

# What SFTConfig has other defaults for than TrainingArguments, by which other tasks go.
AS_ELSEWHERE = {"gradient_checkpointing": False, "bf16": False}


class ChatTask(Task):
    """A causal language model on `messages`, or on `prompt` and `completion`, by trl's `SFTTrainer`."""

    name = "chat"
    unit = "conversations"
    adapter = {"task_type": "CAUSAL_LM"}
    defaults = {"block_length": 1024}
    trains = "causal language models"
    metrics = listed = (PERPLEXITY,)
    criterion = PERPLEXITY
    needs = ("chat", ("trl",))
    is_language = True

    def read(self, settings: DataSettings, model: str) -> Examples:
        tokenizer = load_tokenizer(model)
        length = whole_number("data.block_length", settings.block_length, least=2)
        train, validation = (_read(settings, part, Naming()) for part in parts_of(settings))
        rows = [row for _, part in train for row in part]
        part = validation_part(settings)
        if validation:
            check_apart([_text(*one) for one in train], [_text(*one) for one in validation])
            held_out = [row for _, found in validation for row in found]
        else:
            part = "a tenth of the conversations"
            rows, held_out = parted(rows, [""] * len(rows), self.unit)
            check_apart([_text("the training part", rows)], [_text("the tenth that is kept", held_out)])
        first, second = (encoded(tokenizer, model, found, length) for found in (rows, held_out))
        return Examples(first, second, name_of(settings), part, reader=tokenizer)

    def read_held_out(self, settings: DataSettings, model: str, labels: Sequence[str], naming: Naming) -> Examples:
        tokenizer = load_tokenizer(model)
        length = whole_number(naming.length, settings.block_length, least=2)
        rows = [row for _, part in _read(settings, settings.validation, naming) for row in part]
        return Examples([], encoded(tokenizer, model, rows, length), None, naming.files, reader=tokenizer)

    def empty(self, model: str, data: Examples) -> nn.Module:
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))

    def load(self, model: str, data: Examples, config: PeftConfig | None = None) -> Any:
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def check(self, base: Any, model: str, data: Examples, option: str) -> None:
        rows = [row["input_ids"] for part in (data.train, data.validation) for row in part]
        check_fit(base, model, max(map(max, rows)), max(map(len, rows)), option)

    def rows(self, examples: Any, data: Examples) -> Dataset:
        return Dataset.from_list(list(examples))

    def arguments(self, **values: Any) -> TrainingArguments:
        from trl import SFTConfig

        kept = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}  # rows are tokens already
        return SFTConfig(**(AS_ELSEWHERE | values | kept))

    def trainer(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        data: Examples,
        rows: tuple[Any, Any],
        callbacks: list[Any],
    ) -> Trainer:
        from trl import SFTTrainer

        class RunSFTTrainer(Uncompared, SFTTrainer):
            pass

        tokenizer = data.reader
        adapted: Any = model
        return RunSFTTrainer(
            model=adapted,
            args=arguments,
            train_dataset=rows[0],
            eval_dataset=rows[1],
            processing_class=tokenizer,
            callbacks=callbacks,
        )

    def evaluate(self, model: Any, examples: Any, data: Examples, progress: bool = False) -> dict[str, float]:
        ids = _padded(examples, "input_ids", 0)
        labels = _padded(examples, "labels", -100)
        mask = pad_sequence([torch.ones(len(row["input_ids"]), dtype=torch.long) for row in examples], True)
        return {"perplexity": labelled_perplexity(model, ids, labels, mask, progress=progress)}

    def loss_of(self, metrics: Mapping[str, float]) -> float:
        return math.log(metrics["perplexity"])

    def describe(self, data: Examples, settings: DataSettings) -> str:
        n_answered = sum(label != -100 for row in data.train for label in row["labels"])
        return (
            f"Data: {len(data.train):,} conversations with {n_answered:,} tokens of answers to train on, "
            f"{len(data.validation):,} to evaluate on ({data.validation_split})"
        )

    def prompt(self, tokenizer: Any, text: str) -> list[int]:
        return prompt_of(tokenizer, tokenizer.name_or_path, [{"role": "user", "content": text}] if text else [])

    def sample(self, model: Any, data: Examples) -> dict[str, str]:
        row = data.validation[0]
        n_prompt = next(i for i, label in enumerate(row["labels"]) if label != -100)
        return beside_base(model, data.reader, row["input_ids"][:n_prompt])


def _padded(examples: Any, name: str, value: int) -> Tensor:
    return pad_sequence([torch.tensor(row[name]) for row in examples], batch_first=True, padding_value=value)


def _text(name: str, rows: list[Any]) -> Text:
    return Text(name, [json.dumps(row, sort_keys=True) for row in rows])


def _read(settings: DataSettings, parts: Sequence[str], naming: Naming) -> list[tuple[str, list[Any]]]:
    """Return the names of files or splits, and the conversations in each."""
    if settings.dataset is not None:
        names = [split_name(settings, split) for split in parts]
        return [
            (name, _told(conversations_of(load_split(settings, split), name), name))
            for name, split in zip(names, parts, strict=True)
        ]
    return [(path, _of_file(Path(path), naming.files)) for path in parts]


def _of_file(path: Path, option: str) -> list[Any]:
    content = read_bytes(path, option)
    if path.suffix.lower() not in TABLES:
        raise ValueError(
            f"{path} is no table by its name, and a conversation is a row of one. Name a file that ends in one of "
            f"{', '.join(TABLES)}, or check {option}."
        )
    with open_table(path, content, option) as table:
        return _told(conversations_of(table, str(path)), str(path))


def _told(rows: list[Any], name: str) -> list[Any]:
    if len({json.dumps(row, sort_keys=True) for row in rows}) < len(rows):
        say(f"Some conversations stand more than once in {name}, and count as often.", is_error=True)
    return rows
