"""The parts of the study that train nothing, or little: each case leaves a file behind and is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import record
from benchmarks.harness import runs
from benchmarks.harness.results import lines
from benchmarks.harness.study import Row
from qpa_hf.checkpoint import write_text


def run(name: str, cases: Iterable[Row], measure: Callable[[Row], list[Row]], folder: Path, output: Path) -> None:
    """Measure every case that has left no file, and write all rows and on what they were measured.

    Args:
        name: of the part.
        cases: what is to be measured, as JSON has it.
        measure: returns a case's rows.
        folder: for the file of each case.
        output: JSON file.
    """
    console = Console(stderr=True, highlight=False)
    environments: list[Any] = []
    rows = []
    for case in cases:
        path = folder / f"{name}-{runs.digest(case)}.json"
        if not path.is_file():
            runs.write(path, {"environment": runs.environment("cpu"), "rows": measure(case)})
            console.print(f"{name}: {', '.join(f'{key} {value}' for key, value in case.items())}", soft_wrap=True)
        known = json.loads(path.read_text(encoding="utf-8"))
        rows += [record.with_place(row | {"environment": known["environment"]}, environments) for row in known["rows"]]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, lines({"environments": environments, "rows": rows}) + "\n")
