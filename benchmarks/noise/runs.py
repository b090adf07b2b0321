"""The study's trainings: each leaves a file behind and is not done again; a task's file holds all that are done."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import record
from benchmarks.noise.parts import PARTS, Grid
from benchmarks.noise.setting import Setting
from benchmarks.quality import merged
from benchmarks.quality.runs import Job, Row, execute
from benchmarks.quality.task import Task
from qpa_hf import QPAConfig
from qpa_hf.checkpoint import write_text


@dataclass(frozen=True)
class Run(Job):
    """One training with one setting; see `Job`."""

    setting: Setting

    def config(self) -> QPAConfig:
        """Return a fresh configuration of the adapter."""
        return self.setting.config(self.task.targets, self.seed)


def jobs_of(task: Task, grid: Grid, parts: Iterable[str], folder: Path) -> list[Run]:
    """Return the trainings of some parts; a setting that two parts share is trained once."""
    settings = dict.fromkeys(setting for part in parts for setting in PARTS[part](grid))
    seeds = range(1, grid.n_seeds + 1)
    return [Run(task, s.name, "final", grid.rate, seed, "cpu", folder, s) for s in settings for seed in seeds]


def train(task: Task, grid: Grid, parts: Iterable[str], folder: Path, output: Path) -> merged.Merged:
    """Do the trainings of some parts and write all that the task has so far.

    Args:
        task: see `Task`.
        grid: the study's sizes.
        parts: keys of `PARTS`.
        folder: for the file of each run.
        output: JSON file; its runs are not done again.

    Raises:
        FileExistsError: if the file has results with other settings.
    """
    merged.check(output, task.settings, _protocol(grid))
    merged.restore(output, folder / task.name)
    console = Console(stderr=True, highlight=False)
    jobs = jobs_of(task, grid, parts, folder)
    failed = {}
    for number, job in enumerate(jobs, 1):
        row = execute(job)
        if "failed" in row:
            failed[job.arm] = row["failed"]
        found = row.get("failed") or f"cross-entropy {row['test']['cross_entropy']:.4f}, {row['seconds']:.0f} s"
        console.print(f"{number}/{len(jobs)} {task.name}: {job.arm}, seed {job.seed}: {found}", soft_wrap=True)
    result = _gather(task, grid, folder, failed)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, merged.lines(result) + "\n")
    return json.loads(json.dumps(result))


def _protocol(grid: Grid) -> dict[str, Any]:
    return {"rates": [grid.rate], "tuning_seed": None}


def _gather(task: Task, grid: Grid, folder: Path, failed: dict[str, str]) -> merged.Merged:
    """Return the results of all parts as far as they are done, as the quality bench has them."""
    environments: list[Any] = []
    arms: dict[str, Any] = {}
    rows: list[Row] = []
    for job in jobs_of(task, grid, PARTS, folder):
        if not job.path.is_file():
            continue
        row = json.loads(job.path.read_text(encoding="utf-8"))
        row.pop("config", None)
        arms[job.arm] = {"family": "QPA", "control_of": None, "setting": asdict(job.setting)}
        rows.append(record.with_place(row, environments))
    arms |= {arm: {"family": "QPA", "control_of": None, "failed": why} for arm, why in failed.items()}
    return {
        "task": task.name,
        "settings": task.settings,
        "protocol": _protocol(grid),
        "environments": environments,
        "arms": arms,
        "runs": rows,
    }
