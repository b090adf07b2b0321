"""The command: `python -m benchmarks.noise`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.noise import circuits, estimators, gradients, report, runs
from benchmarks.noise.parts import GRIDS, PARTS, QUICK_GRID
from benchmarks.noise.short import TASKS
from benchmarks.quality.runs import settle
from qpa_hf.training.settings import check_names

RESULTS = Path("benchmarks/results")
BUILD = Path("build/noise")
ALL_PARTS = ("gradients", "estimators", *PARTS)


def study(
    part: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(ALL_PARTS)}; repeat. All if none.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(TASKS)}; repeat. All if none.")] = None,
    quick: Annotated[bool, typer.Option(help="A miniature, to see that it runs; its numbers say nothing.")] = False,
    data: Annotated[Path, typer.Option(help="Folder of sst2/ and wikitext-2/.")] = Path("data"),
    output: Annotated[Path | None, typer.Option(help="Folder for JSON, tables and pictures.")] = None,
    build: Annotated[Path, typer.Option(help="Folder for each run's own file and cached data.")] = BUILD,
) -> None:
    """Study shots, noise, interpolation and gradients; interrupted, the same command goes on where it stopped."""
    check_names(part or (), ALL_PARTS, "The study", "part")
    check_names(task or (), TASKS, "The study", "task")
    settle()
    parts, names = tuple(part or ALL_PARTS), tuple(task or TASKS)
    folder, kept = output or (build / "quick" if quick else RESULTS), build / ("quick_runs" if quick else "runs")
    grids = dict.fromkeys(TASKS, QUICK_GRID) if quick else GRIDS
    if "gradients" in parts:
        found = circuits.kept("gradients", gradients.cases(quick), gradients.measure, kept)
        circuits.write(found, folder / "noise_gradients.json")
    for name in names:
        made, grid = TASKS[name](data, build, quick), grids[name]
        if "estimators" in parts:
            cases = estimators.cases(made, grid, quick)
            found = circuits.kept(
                "estimators", cases, lambda case, t=made, g=grid: estimators.measure(t, g, case), kept
            )
            circuits.write(found, folder / f"noise_estimators_{name}.json")
        if trained := [one for one in parts if one in PARTS]:
            runs.train(made, grid, trained, kept, folder / f"noise_{name}.json")
    print("\n".join(map(str, report.write(folder, grids))))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        typer.run(study)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"Error: {error}")
