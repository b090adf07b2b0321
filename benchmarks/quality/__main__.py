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
from benchmarks.quality import report, verdicts
from benchmarks.quality.arms import ARMS, QUICK
from benchmarks.quality.study import Adapters
from benchmarks.quality.tasks import TASKS
from qpa_hf.training.checks import check_names

QUICK_RATES = (1e-3, 1e-2)


def bench(
    task: Annotated[list[str], several(f"One of {', '.join(TASKS)}")],
    arm: Annotated[list[str] | None, several("Only these arms, all if none")] = None,
    rate: Annotated[list[float] | None, several("Learning rate of the grid")] = None,
    seeds: Seeds = 5,
    quick: Quick = False,
    jobs: Jobs = 1,
    device: Annotated[str, typer.Option(help="Where torch computes; cuda if there is one.")] = "",
    data: Data = Path("data"),
    output: Output = None,
    report_only: ReportOnly = False,
    build: Build = Path("build/quality"),
) -> None:
    """Compare QPA, its controls and PEFT's frugal methods; interrupted, the same command goes on where it stopped."""
    check_names(task, TASKS, "The bench", "task")
    check_names(arm or (), ARMS, "The bench", "arm")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
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


if __name__ == "__main__":
    launch(bench, "quality")
