"""The table of versions: as JSON, which a run goes on from, and as text."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from benchmarks.versions.environment import LISTED, ROOT
from benchmarks.versions.page import Page, table

JSON, TEXT = ROOT / "benchmarks/results/versions.json", ROOT / "docs/versions.md"
NOTES = """# Versions

Written by `make matrix`, on Linux without a GPU. Each row is an environment of its own, which uv resolves from
setup.cfg and which is removed afterwards. It runs the demo, the PEFT contract, and the tests of circuit, generator,
training, materializing, Hub and command line. "lowest" has the lowest version of each direct requirement that is
allowed and has wheels for that Python, with the newest of what these bring. A test that a version cannot pass is
skipped with its reason.
"""
COLUMNS = ("set", "Python", *LISTED, "demo", "contract", "core", "date")


class Table(Page):
    """Rows by name and Python."""

    key = ("set", "python")

    def __init__(self, path: Path = JSON, text: Path = TEXT) -> None:
        super().__init__(path, text)

    def as_text(self) -> str:
        """Return the page."""
        lines = [[row["set"], f"3.{row['python']}", *_cells(row), row["date"]] for row in self.rows]
        failed = [line for row in self.rows for line in failures(row)]
        sections = ["", "## What failed", "", *(f"- {line}" for line in failed)] if failed else []
        return "\n".join([NOTES, *table(COLUMNS, lines), *sections]) + "\n"


def _cells(row: dict[str, Any]) -> list[str]:
    if "unresolved" in row:
        return ["-"] * len(LISTED) + ["no such set"] * 3
    results = row["results"]
    tests = (f"{found['passed']} passed" + _others(found) for found in (results["contract"], results["core"]))
    return [*row["versions"].values(), "passed" if results["demo"]["passed"] else "failed", *tests]


def _others(found: dict[str, Any]) -> str:
    if "printed" in found:
        return ", did not end"
    counts = {"failed": len(found["failed"]), "skipped": found["skipped"]}
    return "".join(f", {count} {what}" for what, count in counts.items() if count)


def failures(row: dict[str, Any]) -> list[str]:
    """Return a line for each thing that failed in a row."""
    name = f"{row['set']}, Python 3.{row['python']}"
    if "unresolved" in row:
        return [f"{name}: {row['unresolved']}"]
    found = [f"{name}: {test}: `{why}`" for part in ("contract", "core") for test, why in _failed(row, part)]
    ended = [
        f"{name}: {part}: `{said['printed'][-1]}`" for part, said in row["results"].items() if said.get("printed")
    ]
    return found + ended


def _failed(row: dict[str, Any], part: str) -> list[tuple[str, str]]:
    return list(row["results"][part].get("failed", {}).items())


def commit() -> str:
    """Return the commit that is checked out."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, encoding="utf-8")
    return found.stdout.strip()
