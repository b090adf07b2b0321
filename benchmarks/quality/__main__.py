"""The command: `python -m benchmarks.quality --task sst2 --task wikitext --task wikitext-head --jobs 2`.

Where a Hub can be reached, `qpa compare --recipe paper-gpt2 --output table` asks the same on the paper's own model and
text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.harness import results
from benchmarks.harness.command import RESULTS, Build, Data, Jobs, Output, Quick, ReportOnly, Seeds, launch, several
from benchmarks.harness.protocol import RATES, Protocol
from benchmarks.harness.summary import summarize
from benchmarks.quality import preregistered as written_down
from benchmarks.quality import report, verdicts
from benchmarks.quality.arms import ARMS, QUICK
from benchmarks.quality.study import Adapters
from benchmarks.quality.tasks import TASKS
from qpa_hf.training.checks import check_names

N_SEEDS = 5
QUICK_RATES = (1e-3, 1e-2)


def bench(
    task: Annotated[list[str] | None, several(f"One of {', '.join(TASKS)}")] = None,
    arm: Annotated[list[str] | None, several("Only these arms, all if none")] = None,
    rate: Annotated[list[float] | None, several("Learning rate of the grid")] = None,
    seeds: Seeds = N_SEEDS,
    preregistered: Annotated[bool, typer.Option(help="Run what PREREGISTRATION.md says, on all its tasks.")] = False,
    quick: Quick = False,
    jobs: Jobs = 1,
    device: Annotated[str, typer.Option(help="Where torch computes; cuda if there is one.")] = "",
    data: Data = Path("data"),
    output: Output = None,
    report_only: ReportOnly = False,
    build: Build = Path("build/quality"),
) -> None:
    """Compare QPA, its controls and PEFT's frugal methods; interrupted, the same command goes on where it stopped."""
    check_names(task or (), TASKS, "The bench", "task")
    check_names(arm or (), ARMS, "The bench", "arm")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if preregistered:
        _check_preregistered(task, arm, rate, seeds, quick)
        folder = (output or RESULTS) / written_down.FOLDER
        if not report_only:
            tasks = [TASKS[name](data, build, False) for name in task or written_down.TASKS]
            written_down.run([Adapters(one, place) for one in tasks], folder, build, jobs, place)
        path = written_down.write(folder)
        print(f"{path.read_text(encoding='utf-8')}\nWritten: {path}")
        return
    if not task:
        raise ValueError(f"No task is named. Pass --task with one of {', '.join(TASKS)}.")
    protocol = Protocol(
        arms=tuple(arm or (QUICK if quick else ARMS)),
        rates=tuple(rate or (QUICK_RATES if quick else RATES)),
        n_seeds=min(seeds, 3) if quick else seeds,
        folder=build / ("quick" if quick else "runs"),
        is_open=not rate and not quick,
        n_jobs=jobs,
        device=place,
    )
    folder = output or (build / "quick" if quick else RESULTS)
    for name in task:
        path = folder / f"quality_{name}.json"
        if report_only:
            found = results.read(path)
        else:
            found = protocol.run(Adapters(TASKS[name](data, build, quick), place), path)
        written = report.write(found, path)
        print("\n".join(verdicts.sentences(summarize(found))))
        print(f"Written: {', '.join(map(str, (path, *written)))}")


def _check_preregistered(
    task: list[str] | None, arm: list[str] | None, rate: list[float] | None, seeds: int, quick: bool
) -> None:
    """Raise if a run would be another one than the one that was written down."""
    check_names(task or (), written_down.TASKS, "The pre-registered test", "task")
    if arm or rate or quick or seeds != N_SEEDS:
        raise ValueError(
            "--preregistered has its own arms, rates and seeds. Leave --arm, --rate, --seeds, --quick out."
        )


if __name__ == "__main__":
    launch(bench, "quality")
