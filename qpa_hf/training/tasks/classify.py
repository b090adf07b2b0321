"""Sequences and their classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

from qpa_hf.evaluation.content import read_bytes
from qpa_hf.evaluation.documents import Text, check_apart
from qpa_hf.evaluation.tables import TABLES, labelled_rows, open_table
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
from qpa_hf.training.tasks.heads import base_config, base_labels, check_kind, with_padding
from qpa_hf.training.tasks.labelled import LabelledTask
from qpa_hf.training.tasks.labels import check_known, label_names, parted

Pairs = list[tuple[str, str]]  # texts with the names of their classes


class ClassifyTask(LabelledTask):
    """A text in one column, its class in another."""

    name = "classify"
    adapter = {"task_type": "SEQ_CLS"}
    trains = "sequence classifiers"
    fields = frozenset({"text_column", "label_column"})
    needs = ("classify", ("sklearn",))
    auto = AutoModelForSequenceClassification

    def read(self, settings: DataSettings, model: str) -> Examples:
        check_kind(self.auto, base_config(model), model, self.name)
        tokenizer = _with_padding(load_tokenizer(model))
        length = whole_number("data.block_length", settings.block_length, least=2)
        train, validation = (_read(settings, part) for part in parts_of(settings))
        pairs = [pair for _, part in train for pair in part]
        names = label_names((label for _, label in pairs), base_labels(model), Naming.label)
        part = validation_part(settings)
        if validation:
            check_apart([_text(*one) for one in train], [_text(*one) for one in validation])
            for where, found in validation:
                check_known((label for _, label in found), names, where)
            held_out = [pair for _, found in validation for pair in found]
        else:
            part = "a tenth of each class"
            pairs, held_out = parted(pairs, [label for _, label in pairs], self.unit)
            check_apart([_text("the training part", pairs)], [_text("the tenth that is kept", held_out)])
        first, second = (_encoded(tokenizer, found, names, length) for found in (pairs, held_out))
        return Examples(first, second, name_of(settings), part, names, tokenizer)

    def read_held_out(self, settings: DataSettings, model: str, labels: Sequence[str], naming: Naming) -> Examples:
        length = whole_number(naming.length, settings.block_length, least=2)
        tokenizer = _with_padding(load_tokenizer(model))
        found = _of_files(settings, settings.validation, naming)
        for where, pairs in found:
            check_known((label for _, label in pairs), labels, where)
        pairs = [pair for _, part in found for pair in part]
        return Examples([], _encoded(tokenizer, pairs, labels, length), None, naming.files, tuple(labels), tokenizer)

    def load(self, model: str, data: Examples, config: Any = None) -> Any:
        return with_padding(super().load(model, data, config), data)

    def check(self, base: Any, model: str, data: Examples, option: str) -> None:
        rows = [row["input_ids"] for part in (data.train, data.validation) for row in part]
        check_fit(base, model, max(map(max, rows)), max(map(len, rows)), option)

    def rows(self, examples: Any, data: Examples) -> Any:
        return examples

    def collator(self, data: Examples) -> Callable[[list[Any]], dict[str, Any]]:
        return DataCollatorWithPadding(data.reader)


def _with_padding(tokenizer: Any) -> Any:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _read(settings: DataSettings, parts: Sequence[str]) -> list[tuple[str, Pairs]]:
    """Return the names of files or splits, and the texts and classes in each."""
    if settings.dataset is None:
        return _of_files(settings, parts, Naming())
    found = []
    for split in parts:
        name = split_name(settings, split)
        found.append((name, labelled_rows(load_split(settings, split), *_columns(settings, Naming()), name)))
    return found


def _columns(settings: DataSettings, naming: Naming) -> tuple[tuple[str, str], tuple[str, str]]:
    return (settings.text_column, naming.text), (settings.label_column, naming.label)


def _of_files(settings: DataSettings, paths: Sequence[str], naming: Naming) -> list[tuple[str, Pairs]]:
    return [(path, _of_file(Path(path), naming.files, *_columns(settings, naming))) for path in paths]


def _of_file(path: Path, option: str, text: tuple[str, str], label: tuple[str, str]) -> Pairs:
    content = read_bytes(path, option)
    if path.suffix.lower() not in TABLES:
        raise ValueError(
            f"{path} is no table by its name, and a class must stand beside each text. Name a file that ends "
            f"in one of {', '.join(TABLES)}, or check {option}."
        )
    with open_table(path, content, option) as table:
        return labelled_rows(table, text, label, str(path))


def _text(name: str, pairs: Pairs) -> Text:
    return Text(name, [text for text, _ in pairs])


def _encoded(tokenizer: Any, pairs: Pairs, names: Sequence[str], length: int) -> list[dict[str, Any]]:
    """Return texts as rows of tokens, cut to a length, with the index of their class."""
    index = {name: i for i, name in enumerate(names)}
    texts = [text for text, _ in pairs]
    encoded = tokenizer(texts, truncation=True, max_length=length, verbose=False)
    n_cut = sum(len(ids) == length for ids in encoded["input_ids"])
    if n_cut:
        say(
            f"{n_cut:,} of {len(texts):,} texts fill `data.block_length`={length} tokens; what is beyond is cut off.",
            is_error=True,
        )
    inputs = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
    return [
        {name: values[i] for name, values in inputs.items()} | {"labels": index[label]}
        for i, (_, label) in enumerate(pairs)
    ]
