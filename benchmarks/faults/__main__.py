"""The command: `python -m benchmarks.faults`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("benchmarks/results/faults.json")
BUILD = Path("build/faults")
PARTS = ("inputs", "interruptions", "conditions")


def settle(build: Path) -> None:
    """Give libraries a home of their own, offline; they look when they are imported, so nothing is before."""
    home = build.resolve() / "home"
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ |= {"HOME": str(home), "HF_HOME": str(home / "huggingface"), "TMPDIR": str(home / "tmp")}
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
    }
    tempfile.tempdir = None
    sys.dont_write_bytecode = True


def command(
    part: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; repeat. All if none.")] = None,
    rehearse: Annotated[bool, typer.Option(help="A few of each, to see that it runs.")] = False,
    inputs: Annotated[int, typer.Option(min=1, help="Bad inputs.")] = 5000,
    interruptions: Annotated[int, typer.Option(min=1, help="Interruptions, over all commands.")] = 324,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that run cases at the same time.")] = 2,
    output: Annotated[Path, typer.Option(help="JSON file; the table lies beside it as .md.")] = RESULTS,
    build: Annotated[Path, typer.Option(help="Folder for what is done so far, and for what is broken.")] = BUILD,
) -> None:
    """Give everything bad inputs, interrupt everything, and run it under hostile conditions, for real.

    Interrupted, the same command goes on where it stopped. Takes about 25 minutes on two cores. The exit code is 1 if
    anything was wrong.
    """
    settle(build)
    from benchmarks.faults.study import Plan, study
    from qpa_hf.training.checks import check_names

    check_names(part or (), PARTS, "The study", "part")
    plan = Plan(tuple(part or PARTS), seed, inputs, interruptions, workers)
    sys.exit(0 if study(plan.rehearsal() if rehearse else plan, build.resolve(), output) else 1)


if __name__ == "__main__":
    typer.run(command)
