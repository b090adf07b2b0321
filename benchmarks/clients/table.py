"""The table of clients: as JSON, which a run goes on from, and as text."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.clients.arms import ARMS
from benchmarks.clients.figures import Figure
from benchmarks.clients.rows import LISTED
from benchmarks.versions.environment import ROOT

JSON, TEXT = ROOT / "benchmarks/results/clients.json", ROOT / "docs/clients.md"
NOTES = """# Clients

Written by `make clients` ([clients.json](../benchmarks/results/clients.json)): QPA in other people's tools, on CPUs
and without a download of any model, with plain LoRA beside it. Each client has an environment of its own, which uv
resolves from setup.cfg and the client's package. What is done stands in
[rows.py](../benchmarks/clients/rows.py) and beside it. A number is the largest difference between the client's answer
and that of transformers and peft: logits, parameters, counts of other tokens. "No" is explained below the table.
"""


def passed(found: dict[str, Any]) -> bool:
    """Return whether a case went well with an arm."""
    return "figures" in found and all(Figure(**figure).is_met for figure in found["figures"])


class Table:
    """What came of each client; each is written when it is done.

    Args:
        path: JSON file of the clients.
        text: the same as text.
    """

    def __init__(self, path: Path = JSON, text: Path = TEXT) -> None:
        self.path, self.text = path, text

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All clients there are."""
        return json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else []

    def has(self, name: str, commit: str) -> bool:
        """Return whether a client was run on this commit."""
        return any((row["client"], row["commit"]) == (name, commit) for row in self.rows)

    def add(self, row: dict[str, Any], order: tuple[str, ...]) -> None:
        """Take a client in, in place of an earlier run, and write all in the given order."""
        row = row | {"date": datetime.now(UTC).date().isoformat(), "machine": platform.platform()}
        rows = {other["client"]: other for other in self.rows} | {row["client"]: row}
        self.path.write_text(json.dumps([rows[n] for n in order if n in rows], indent=1) + "\n", encoding="utf-8")
        self.text.write_text(self.as_text(), encoding="utf-8")

    def as_text(self) -> str:
        """Return the page."""
        arms = [arm.name for arm in ARMS]
        results = [
            [row["client"] if i == 0 else "", case, *(_cell(found.get(arm)) for arm in arms)]
            for row in self.rows
            for i, (case, found) in enumerate(row.get("cases", {}).items())
        ]
        versions = [[row["client"], _versions(row), row["date"]] for row in self.rows]
        wrong = [line for row in self.rows for line in failures(row)]
        parts = [NOTES, *_table(["client", "what is done", *arms], results)]
        parts += ["", "## What does not work", "", *(f"- {line}" for line in wrong)] if wrong else []
        parts += ["", "## Versions", "", *_table(["client", "versions", "date"], versions)]
        return "\n".join(parts) + "\n"


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows]]


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    if not passed(found):
        return "no"
    return f"{max(figure['value'] for figure in found['figures']):.1g}"


def _versions(row: dict[str, Any]) -> str:
    if "unresolved" in row:
        return "no such set"
    return ", ".join(f"{name} {version}" for name, version in row["versions"].items())


def failures(row: dict[str, Any]) -> list[str]:
    """Return a line for each thing that did not work."""
    if "unresolved" in row:
        return [f"{row['client']}: {row['unresolved']}"]
    found = [
        f"{row['client']}, {case}, {arm}: {_why(result)}"
        for case, arms in row["cases"].items()
        for arm, result in arms.items()
        if not passed(result)
    ]
    return found + ([f"{row['client']} did not end: `{row['printed'][-1]}`"] if "printed" in row else [])


def _why(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"`{result['error']}`"
    wrong = [Figure(**figure) for figure in result["figures"]]
    return "; ".join(f"{f.what}: {f.value:.1g}, not at most {f.bound:.1g}" for f in wrong if not f.is_met)


def listed(packages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the packages whose versions stand in the table."""
    return tuple(dict.fromkeys([*packages, *LISTED]))
