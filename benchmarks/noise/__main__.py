"""The command: `python -m benchmarks.noise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from benchmarks.harness.command import RESULTS, Build, Data, Output, Quick, ReportOnly, launch, several
from benchmarks.harness.protocol import Protocol
from benchmarks.harness.runs import settle
from benchmarks.noise import circuits, estimators, gradients, report
from benchmarks.noise.parts import GRIDS, PARTS, QUICK_GRID
from benchmarks.noise.short import TASKS
from benchmarks.noise.study import Measurements, settings_of
from qpa_hf.training.checks import check_names

ALL_PARTS = ("gradients", "estimators", *PARTS)


def study(
    part: Annotated[list[str] | None, several(f"One of {', '.join(ALL_PARTS)}, all if none")] = None,
    task: Annotated[list[str] | None, several(f"One of {', '.join(TASKS)}, all if none")] = None,
    quick: Quick = False,
    data: Data = Path("data"),
    output: Output = None,
    report_only: ReportOnly = False,
    build: Build = Path("build/noise"),
) -> None:
    """Study shots, noise, interpolation and gradients; interrupted, the same command goes on where it stopped."""
    check_names(part or (), ALL_PARTS, "The study", "part")
    check_names(task or (), TASKS, "The study", "task")
    settle()
    parts = () if report_only else tuple(part or ALL_PARTS)
    folder = output or (build / "quick" if quick else RESULTS)
    kept = build / ("quick_runs" if quick else "runs")
    grids = dict.fromkeys(TASKS, QUICK_GRID) if quick else GRIDS
    if "gradients" in parts:
        circuits.run("gradients", gradients.cases(quick), gradients.measure, kept, folder / "noise_gradients.json")
    for name in (task or TASKS) if parts else ():
        made = TASKS[name](data, build, quick)
        grid = grids[name]
        if "estimators" in parts:
            cases = estimators.cases(made, grid, quick)
            output_file = folder / f"noise_estimators_{name}.json"
            circuits.run("estimators", cases, lambda c, t=made, g=grid: estimators.measure(t, g, c), kept, output_file)
        arms = tuple(setting.name for setting in settings_of(grid, [one for one in parts if one in PARTS]))
        if arms:
            protocol = Protocol(arms, (grid.rate,), grid.n_seeds, kept, tuning_seeds=())
            protocol.run(Measurements(made, grid=grid), folder / f"noise_{name}.json")
    print("\n".join(map(str, report.write(folder, grids))))


if __name__ == "__main__":
    launch(study, "quality")
