"""The command: `python -m benchmarks.quality --task sst2 --task wikitext --task wikitext-head --jobs 2`.

Where a Hub can be reached, `qpa compare --recipe paper-gpt2 --output table` asks the same on the paper's own model and
text.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.quality import merged, report, verdicts
from benchmarks.quality.arms import ARMS, QUICK
from benchmarks.quality.protocol import RATES, Protocol
from benchmarks.quality.summary import summarize
from benchmarks.quality.tasks import TASKS
from qpa_hf.training.settings import check_names

QUICK_RATES = (1e-3, 1e-2)
RESULTS = Path("benchmarks/results")
BUILD = Path("build/quality")


def bench(
    task: Annotated[list[str], typer.Option(help=f"One of {', '.join(TASKS)}; repeat for several.")],
    arm: Annotated[list[str] | None, typer.Option(help="Only these arms; repeat for several. All if none.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Learning rate of the grid; repeat for several.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Reported runs of each arm.")] = 5,
    quick: Annotated[bool, typer.Option(help="Few arms, rates and steps: 10 minutes on 2 cores.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes beside each other, each with one thread.")] = 1,
    device: Annotated[str, typer.Option(help="Where torch computes; cuda if there is one.")] = "",
    data: Annotated[Path, typer.Option(help="Folder of sst2/ and wikitext-2/.")] = Path("data"),
    output: Annotated[Path | None, typer.Option(help="Folder for tables, plots and the merged JSON.")] = None,
    report_only: Annotated[
        bool, typer.Option(help="Run nothing, only report anew what the output folder has.")
    ] = False,
    build: Annotated[Path, typer.Option(help="Folder for each run's own file and cached data.")] = BUILD,
) -> None:
    """Compare QPA, its controls and PEFT's frugal methods; interrupted, the same command goes on where it stopped."""
    check_names(task, TASKS, "The bench", "task")
    check_names(arm or (), ARMS, "The bench", "arm")
    protocol = Protocol(
        arms=tuple(arm or (QUICK if quick else ARMS)),
        rates=tuple(rate or (QUICK_RATES if quick else RATES)),
        is_open=not rate and not quick,
        n_seeds=min(seeds, 3) if quick else seeds,
        n_jobs=jobs,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        folder=build / ("quick" if quick else "runs"),
    )
    folder = output or (build / "quick" if quick else RESULTS)
    for name in task:
        path = folder / f"quality_{name}.json"
        found = merged.read(path) if report_only else protocol.run(TASKS[name](data, build, quick), path)
        written = report.write(found, path)
        print("\n".join(verdicts.sentences(summarize(found))))
        print(f"Written: {', '.join(map(str, (path, *written)))}")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        typer.run(bench)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"Error: {error}")
