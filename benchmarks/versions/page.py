"""What environments came to, a row for each: as JSON, which a run goes on from, and as a page of the documentation."""

from __future__ import annotations

import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar


class Page(ABC):
    """Rows that are told apart by some of their fields; each is written when it is done.

    Args:
        path: JSON file of the rows.
        text: the same as text.
    """

    key: ClassVar[tuple[str, ...]]

    def __init__(self, path: Path, text: Path) -> None:
        self.path, self.text = path, text

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows there are, also those of another run at the same time."""
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else []

    def key_of(self, row: dict[str, Any]) -> tuple[Any, ...]:
        """Return what tells a row apart."""
        return tuple(row[name] for name in self.key)

    def has(self, *key: Any, commit: str) -> bool:
        """Return whether a row was run on this commit."""
        return any(self.key_of(row) == key and row["commit"] == commit for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Take a row in, in place of an earlier one, and write all."""
        row = row | {"date": datetime.now(UTC).date().isoformat(), "machine": platform.platform()}
        rows = self.in_order([*(other for other in self.rows if self.key_of(other) != self.key_of(row)), row])
        self.path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        self.text.parent.mkdir(exist_ok=True)
        self.text.write_text(self.as_text(), encoding="utf-8")

    def in_order(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return rows as they are written: the newest last."""
        return rows

    @abstractmethod
    def as_text(self) -> str:
        """Return the page."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
