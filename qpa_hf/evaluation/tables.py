"""The texts in a column: of a table in a file, or of a dataset."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import load_dataset
from datasets.exceptions import DatasetsError

from qpa_hf.evaluation.content import decode
from qpa_hf.messages import first_sentence
from qpa_hf.terminal import say

# How `datasets` reads each ending. Its defaults would take the texts "NA" and "null" for missing ones.
CSV = {"keep_default_na": False, "na_values": []}
TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".csv": ("csv", CSV),
    ".tsv": ("csv", CSV | {"sep": "\t"}),
    ".parquet": ("parquet", {}),
}
PARQUET = b"PAR1"  # at both ends of a whole one
MOST_COLUMNS = 10  # that a message names


def read_table(path: Path, content: bytes, option: str, column: str, setting: str) -> list[str]:
    """Return the texts of a table's column, with the empty ones counted and left out.

    Args: see `open_table`, and
        column: the column that holds the text.
        setting: the setting that names the column, for messages.

    Raises:
        ValueError: if the table is damaged, lacks the column, or has no text in it.
    """
    with open_table(path, content, option) as table:
        return texts_of(table, column, str(path), setting)


@contextmanager
def open_table(path: Path, content: bytes, option: str) -> Iterator[Any]:
    """Yield the table of a file as a `datasets.Dataset`, which is there until the end of the block.

    Args:
        path: the path of the file; its ending is a key of `TABLES`.
        content: the bytes of the file.
        option: the option that names the file, for messages.

    Raises:
        ValueError: if the table is damaged.
    """
    kind, options = TABLES[path.suffix.lower()]
    if kind != "parquet":
        decode(content, path, option)
    elif not (content.startswith(PARQUET) and content.endswith(PARQUET)):
        raise ValueError(f"{path} is not a Parquet table, or not a complete one. Write it again, or check {option}.")
    # A cache that goes away at once: the user's would keep a copy, and give it for a file changed within a second.
    with tempfile.TemporaryDirectory(prefix="qpa_hf_table_", ignore_cleanup_errors=True) as cache:
        try:
            file = glob.escape(str(path.absolute()))
            table = load_dataset(kind, data_files=file, split="train", cache_dir=cache, **options)
        except (DatasetsError, ValueError, TypeError, StopIteration) as error:
            cause: Any = error.__cause__ or error
            reason = first_sentence(cause) or "it has no rows"
            raise ValueError(
                f"{path} cannot be read as {path.suffix} ({reason}). Correct it, or end its name in .txt if it is "
                "plain text."
            ) from error
        # pandas takes cells beyond the first row's for an index, and shifts all columns: the texts would be wrong
        # ones.
        if any(name.startswith("__index_level_") for name in table.column_names):
            raise ValueError(f"{path} has rows with more cells than its first one. Put texts with commas in quotes.")
        yield table


def column_of(table: Any, column: str, name: str, setting: str) -> list[Any]:
    """Return the values of a dataset's column.

    Args:
        table: the `datasets.Dataset`.
        column: the name of the column.
        name: the name of the file or dataset, for messages.
        setting: the setting that names the column, for messages.

    Raises:
        ValueError: if there is no such column.
    """
    if column not in table.column_names:
        raise ValueError(f"There is no column `{column}` in {name}. Set {setting} to one of {_known(table)}.")
    return list(table[column])


def _known(table: Any) -> str:
    names = table.column_names
    return ", ".join(names[:MOST_COLUMNS]) + (", ..." if len(names) > MOST_COLUMNS else "")


def texts_of(table: Any, column: str, name: str, setting: str) -> list[str]:
    """Return the texts of a dataset's column, with the empty ones counted and left out.

    Args:
        table: the `datasets.Dataset`.
        column: the column that holds the text.
        name: the name of the file or dataset, for messages.
        setting: the setting that names the column, for messages.

    Raises:
        ValueError: if it lacks the column, or has no text in it.
    """
    rows = column_of(table, column, name, setting)
    known = _known(table)
    texts = [text for text in rows if text is not None]
    check_texts(texts, column, name, setting, known)
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError(f"The column `{column}` of {name} has no text. Set {setting} to another one of {known}.")
    if n_empty := len(rows) - len(texts):
        say(f"{n_empty:,} of the {len(rows):,} rows of {name} have no text and are left out.", is_error=True)
    return texts


def check_texts(texts: Iterable[Any], column: str, name: str, setting: str, known: str) -> None:
    """Raise ValueError if a value in a column is no text; `known` names all columns."""
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(
                f"The column `{column}` of {name} holds {type(text).__name__}, not text. Set {setting} to another one "
                f"of {known}."
            )
        if "\0" in text:
            raise ValueError(
                f"The column `{column}` of {name} has NUL characters, so it is not text. Correct it, or set {setting} "
                f"to another one of {known}."
            )


def labelled_rows(table: Any, text: tuple[str, str], label: tuple[str, str], name: str) -> list[tuple[str, str]]:
    """Return the texts of a dataset with the names of their classes; rows that lack either are counted and left out.

    Args:
        table: the `datasets.Dataset`.
        text: the column that holds the text, and the setting that names it.
        label: the same of the class: a text, a whole number, a truth value, or one of a `ClassLabel`.
        name: the name of the file or dataset, for messages.

    Raises:
        ValueError: if a column is missing, the one holds no texts, or the other no classes.
    """
    texts = column_of(table, text[0], name, text[1])
    check_texts((one for one in texts if one is not None), text[0], name, text[1], _known(table))
    labels = labels_of(table, label, name)
    rows = [(one, of) for one, of in zip(texts, labels, strict=True) if one and one.strip() and of is not None]
    if not rows:
        raise ValueError(f"No row of {name} has a text and a label. Set {text[1]} and {label[1]} to other columns.")
    if n_empty := len(texts) - len(rows):
        say(
            f"{n_empty:,} of the {len(texts):,} rows of {name} lack a text or a label, and are left out.",
            is_error=True,
        )
    return rows


def labels_of(table: Any, label: tuple[str, str], name: str) -> list[str | None]:
    """Return the names of the classes in a dataset's column, None where a row has none. Args: see `labelled_rows`."""
    column, setting = label
    values = column_of(table, column, name, setting)
    names = getattr(table.features[column], "names", None)  # of a ClassLabel
    for value in values:
        if not isinstance(value, str | int | None):
            raise ValueError(
                f"The column `{column}` of {name} holds {type(value).__name__}, not classes. Set {setting} to a "
                f"column of names or whole numbers, one of {_known(table)}."
            )
    if names is not None:
        return [None if value is None or value < 0 else names[value] for value in values]  # -1: of a hidden test set
    return [None if value is None or value == "" else str(value) for value in values]
