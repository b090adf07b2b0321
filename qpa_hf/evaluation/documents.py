"""The documents in files and datasets, and whether any stand where they should not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from qpa_hf.evaluation.content import decode, read_bytes
from qpa_hf.evaluation.tables import TABLES, read_table
from qpa_hf.terminal import say

COLUMN = "text"
COLUMN_SETTING = "`data.text_column`"
FIRST_LINES = 3  # which tell JSON lines from text


@dataclass(frozen=True)
class Text:
    """What one file or one split of a dataset holds.

    Args:
        name: the name of the file or split, for messages.
        documents: the texts in it, none of them empty.
    """

    name: str
    documents: list[str]


def read_texts(
    names: Iterable[str | Path], option: str, column: str = COLUMN, setting: str = COLUMN_SETTING
) -> list[str]:
    """Return the documents of all files, see `read_files`."""
    return [document for text in read_files(names, option, column, setting) for document in text.documents]


def read_files(
    names: Iterable[str | Path], option: str, column: str = COLUMN, setting: str = COLUMN_SETTING
) -> list[Text]:
    """Return what files hold: a text file is one document, each row of a table (JSON, CSV, Parquet) another one.

    Args:
        names: the names of the files.
        option: the option that names the files, for messages.
        column: the column of a table that holds the text.
        setting: the setting that names the column, for messages.

    Raises:
        OSError: if one is missing or cannot be read.
        ValueError: if one is not text in UTF-8, or a table without text in its column.
    """
    texts: list[Text] = []
    for path in map(Path, names):
        content = read_bytes(path, option)
        if path.suffix.lower() in TABLES:
            documents = read_table(path, content, option, column, setting)
        else:
            documents = [decode(content, path, option)]
            _check_plain(documents[0], path, column, setting)
        for earlier in texts:
            if earlier.documents == documents:
                say(f"{earlier.name} and {path} hold the same text, which counts twice.", is_error=True)
        texts.append(Text(str(path), documents))
    return texts


def _check_plain(text: str, path: Path, column: str, setting: str) -> None:
    """Refuse JSON under another name: its quotes, braces and names of columns are no text."""
    if text.lstrip()[:1] not in ("{", "["):
        return
    lines = [line for line in text.splitlines() if line.strip()][:FIRST_LINES]
    if all(isinstance(_json(line), dict) for line in lines) or isinstance(_json(text), dict | list):
        raise ValueError(
            f"{path} holds JSON, not plain text. End its name in .json or .jsonl, and its column `{column}` is read "
            f"(set {setting} for another one)."
        )


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def check_apart(train: Sequence[Text], validation: Sequence[Text]) -> None:
    """Refuse a validation text that is trained on; if that is so of only some of its documents, say of how many.

    Raises:
        ValueError: naming both.
    """
    # Two ways to train on what is evaluated: the same documents, in any order and file, or an excerpt of a longer
    # text, none of whose documents need to be equal.
    known = {document.strip(): text.name for text in train for document in text.documents}
    for text in validation:
        documents = [document.strip() for document in text.documents]
        shared = [document for document in documents if document in known]
        around = [other.name for other in train if _joined(text) in _joined(other)]  # an excerpt of a book
        if around or len(shared) == len(documents):
            raise ValueError(
                f"The text of {text.name}, which is evaluated on, stands in {(*around, known.get(documents[0]))[0]}, "
                "too, and a perplexity on trained text says nothing of other text. Leave one of them out, or name "
                "another."
            )
        if shared:
            say(
                f"{len(shared):,} of the {len(documents):,} texts of {text.name} stand in the training text, too.",
                is_error=True,
            )


def _joined(text: Text) -> str:
    return "\n".join(map(str.strip, text.documents))
