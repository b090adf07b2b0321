"""Batches of bad inputs, each in a child that may die of one: the next child goes on after that."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.faults.children import Child
from benchmarks.faults.inputs import cases
from benchmarks.faults.verdict import SECONDS, judging

SIZE = 25  # cases of a batch


def examine(seed: int, start: int, root: Path, size: int = SIZE) -> dict[str, Any]:
    """Judge the cases from a number on, and return how many there were and what was wrong with which.

    Args:
        seed: of the cases.
        start: number of the first one.
        root: folder with the templates.
        size: how many.
    """
    folder, verdicts = root / "cases" / str(start), root / "cases" / f"{start}.jsonl"
    verdicts.parent.mkdir(exist_ok=True)
    verdicts.unlink(missing_ok=True)
    wrong: list[dict[str, Any]] = []
    number = start
    while number < start + size:
        act = partial(_judge, seed, number, start + size, verdicts)
        ended = Child(act, folder).wait(SIZE * SECONDS)
        lines = [json.loads(line) for line in verdicts.read_text(encoding="utf-8").splitlines()]
        verdicts.unlink()
        wrong += [line for line in lines if line.get("wrong")]
        number += len({line["number"] for line in lines})
        if ended.code:  # the last case ended the process
            is_hung = ended.is_hung or "Timeout (" in ended.text
            why = "hangs" if is_hung else f"ends the process ({ended.code}: {ended.last_line[:300]})"
            wrong.append(lines[-1] | {"wrong": why} if lines else {"number": number, "label": "", "wrong": why})
            number += not lines
    shutil.rmtree(folder, ignore_errors=True)
    return {"start": start, "count": size, "wrong": wrong}


def _judge(seed: int, first: int, stop: int, verdicts: Path, folder: Path) -> None:
    allowed = tuple(f"{path}{os.sep}" for path in (os.environ["HOME"], os.environ["TMPDIR"]))
    templates = folder.parents[1] / "templates"
    with verdicts.open("w", encoding="utf-8") as file, judging(allowed) as judge:
        for number, (label, make) in enumerate(islice(cases(seed, stop, templates), first, None), first):
            case = {"number": number, "label": label}
            print(json.dumps(case), file=file, flush=True)
            print(json.dumps(case | {"wrong": judge(make, folder)}), file=file, flush=True)
