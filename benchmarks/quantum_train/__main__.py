"""The command: `python -m benchmarks.quantum_train`, all tasks, or `--task digits`; interrupted, it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from benchmarks.harness.command import RESULTS, Build, Jobs, Output, Quick, ReportOnly, Seeds, launch, several
from benchmarks.harness.protocol import RATES, Protocol
from benchmarks.quantum_train import report
from benchmarks.quantum_train.arms import ARMS, QUICK
from benchmarks.quantum_train.study import Networks
from benchmarks.quantum_train.tasks import TASKS
from qpa_hf.training.checks import check_names

QUICK_STEPS = 5
TUNING_SEED = 101  # the first one


def study(
    task: Annotated[list[str] | None, several(f"One of {', '.join(TASKS)}, all if none")] = None,
    arm: Annotated[list[str] | None, several("Only these arms, all if none")] = None,
    seeds: Seeds = 5,
    quick: Quick = False,
    jobs: Jobs = 1,
    output: Output = None,
    report_only: ReportOnly = False,
    build: Build = Path("build/quantum_train"),
) -> None:
    """Train small networks whose weights a generator makes, beside networks trained directly and the controls."""
    check_names(task or (), TASKS, "The study", "task")
    check_names(arm or (), ARMS, "The study", "arm")
    folder = output or (build / "quick" if quick else RESULTS)
    for name in () if report_only else task or TASKS:
        one = TASKS[name](n_steps=QUICK_STEPS) if quick else TASKS[name]()
        protocol = Protocol(
            arms=tuple(arm or (QUICK if quick else ARMS)),
            rates=(1e-2,) if quick else RATES,
            n_seeds=min(seeds, 3) if quick else seeds,
            folder=build / ("quick_runs" if quick else "runs"),
            tuning_seeds=tuple(range(TUNING_SEED, TUNING_SEED + one.n_tuning)),
            n_jobs=jobs,
        )
        protocol.run(Networks(one), folder / f"quantum_train_{name}.json")
    written = report.write(folder, list(TASKS))
    print(written[0].read_text(encoding="utf-8"))
    print(f"Written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    launch(study, "quantum-train")
