"""The command: `python -m benchmarks.quantum_train`, all tasks, or `--task digits`; interrupted, it goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.quantum_train import report
from benchmarks.quantum_train.arms import ARMS, QUICK
from benchmarks.quantum_train.protocol import Protocol
from benchmarks.quantum_train.tasks import TASKS
from qpa_hf.training.settings import check_names

RESULTS = Path("benchmarks/results")
BUILD = Path("build/quantum_train")
QUICK_STEPS = 5


def study(
    task: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(TASKS)}; repeat for several.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only these arms; repeat for several. All if none.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Reported runs of each arm.")] = 5,
    quick: Annotated[bool, typer.Option(help="Few arms, rates and steps: a minute, to see that it runs.")] = False,
    output: Annotated[Path | None, typer.Option(help="Folder for JSON, table and picture.")] = None,
) -> None:
    """Train small networks whose weights a generator makes, beside networks trained directly and the controls."""
    check_names(task or (), TASKS, "The study", "task")
    check_names(arm or (), ARMS, "The study", "arm")
    folder = output or (BUILD if quick else RESULTS)
    protocol = Protocol(tuple(arm or (QUICK if quick else ARMS)), n_seeds=seeds)
    if quick:
        protocol = Protocol(protocol.arms, (1e-2,), min(seeds, 3))
    for name in task or TASKS:
        one = TASKS[name](n_steps=QUICK_STEPS) if quick else TASKS[name]()
        protocol.run(one, folder / f"quantum_train_{name}.json")
    written = report.write(folder, list(TASKS))
    print(written[0].read_text(encoding="utf-8"))
    print(f"Written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    try:
        typer.run(study)
    except ModuleNotFoundError as error:
        sys.exit(f"Error: {error}. Install the study's libraries with `pip install 'qpa-hf[quantum-train]'`.")
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
