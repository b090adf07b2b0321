"""The table of clients: as JSON, which a run goes on from, and as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.clients.arms import ARMS
from benchmarks.clients.figures import Figure
from benchmarks.clients.rows import CLIENTS, LISTED
from benchmarks.versions.environment import ROOT
from benchmarks.versions.page import Page, table

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


class Table(Page):
    """Rows by client, in the order in which the clients are listed."""

    key = ("client",)

    def __init__(self, path: Path = JSON, text: Path = TEXT) -> None:
        super().__init__(path, text)

    def in_order(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of the clients that there are, as these are listed."""
        found = {row["client"]: row for row in rows}
        return [found[client.name] for client in CLIENTS if client.name in found]

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
        parts = [NOTES, *table(["client", "what is done", *arms], results)]
        parts += ["", "## What does not work", "", *(f"- {line}" for line in wrong)] if wrong else []
        parts += ["", "## Versions", "", *table(["client", "versions", "date"], versions)]
        return "\n".join(parts) + "\n"


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
