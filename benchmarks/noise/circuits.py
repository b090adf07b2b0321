"""The parts of the study that train nothing, or little: each case leaves a file behind and is not done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import record
from benchmarks.quality.runs import environment
from qpa_hf.checkpoint import write_text

Row = dict[str, Any]


def kept(name: str, cases: Iterable[Row], measure: Callable[[Row], list[Row]], folder: Path) -> list[Row]:
    """Return what every case has left behind: its rows and on what it was measured.

    Args:
        name: of the part.
        cases: what is to be measured, as JSON has it.
        measure: returns a case's rows.
        folder: for the file of each case.
    """
    console = Console(stderr=True, highlight=False)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for case in cases:
        digest = hashlib.sha256(json.dumps(case, sort_keys=True).encode()).hexdigest()[:12]
        path = folder / f"{name}-{digest}.json"
        if not path.is_file():
            write_text(path, json.dumps({"environment": environment("cpu"), "rows": measure(case)}) + "\n")
            console.print(f"{name}: {', '.join(f'{key} {value}' for key, value in case.items())}", soft_wrap=True)
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def write(found: list[Row], output: Path) -> None:
    """Write a part's rows, a line for each, and on what they were measured."""
    environments: list[Any] = []
    lines = []
    for case in found:
        placed = [record.with_place(row | {"environment": case["environment"]}, environments) for row in case["rows"]]
        lines += [f"  {json.dumps(row)}" for row in placed]
    rows = ",\n".join(lines)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, f'{{\n "environments": {json.dumps(environments)},\n "rows": [\n{rows}\n ]\n}}\n')
