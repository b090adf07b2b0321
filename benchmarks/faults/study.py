"""All parts: each batch, interruption and check leaves a file behind and is not done again for the same commit."""

from __future__ import annotations

import gc
import json
import multiprocessing
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import qiskit_ibm_runtime  # noqa: F401  # what children would import, each anew
from rich.console import Console

from benchmarks import record
from benchmarks.faults import batches, hub, report
from benchmarks.faults.conditions import CHECKS
from benchmarks.faults.inputs import write_templates
from benchmarks.faults.scenes import SCENES, Scene
from benchmarks.faults.service import device
from benchmarks.faults.stage import SIGNALS, Stage
from benchmarks.harness.runs import settle
from qpa_hf import comparison, plots  # noqa: F401
from qpa_hf.checkpoint import write_text

ROOT = Path(__file__).parents[2]
REHEARSED = ("materialize", "device ledger", "push", "initialize_basis(cache=...)")
REHEARSED_CHECKS = ("20 columns", "redirects with a token")


@dataclass(frozen=True)
class Plan:
    """What a study does.

    Args:
        parts: which.
        seed: of everything random.
        n_inputs: bad inputs.
        n_interruptions: over all scenes.
        n_workers: processes at the same time.
        scenes: names of the commands that are interrupted; all if empty.
        checks: names of the conditions.
    """

    parts: tuple[str, ...]
    seed: int
    n_inputs: int
    n_interruptions: int
    n_workers: int
    scenes: tuple[str, ...] = ()
    checks: tuple[str, ...] = tuple(CHECKS)

    def rehearsal(self) -> Plan:
        """Return the same in miniature, of what takes no second."""
        n = len(SIGNALS) * len(REHEARSED)
        return replace(self, n_inputs=50, n_interruptions=n, scenes=REHEARSED, checks=REHEARSED_CHECKS)


@dataclass(frozen=True)
class Job:
    """Something to do once.

    Args:
        part: which it belongs to.
        name: of its file.
        do: does it and returns the row of its file.
    """

    part: str
    name: str
    do: Callable[[], dict[str, Any]]


def study(plan: Plan, build: Path, output: Path) -> bool:
    """Do what is not done yet, write the JSON and the table, and return whether nothing was wrong."""
    settle()
    warnings.simplefilter("ignore")
    device()  # which children use
    commit = record.commit()
    rows = build / "rows" / f"{commit}-seed-{plan.seed}"
    work = build / "work"
    shutil.rmtree(work, ignore_errors=True)
    rows.mkdir(parents=True, exist_ok=True)
    work.mkdir()
    with hub.started(work / "hub") as there:
        write_templates(work)
        jobs = list(_jobs(plan, work, there))
        gc.collect()
        gc.freeze()  # else each child copies what it collects
        _do([job for job in jobs if not _path(rows, job).is_file()], rows, plan.n_workers)
    found = [json.loads(_path(rows, job).read_text(encoding="utf-8")) | {"part": job.part} for job in jobs]
    return report.write(output, asdict(plan), commit, found)


def _path(rows: Path, job: Job) -> Path:
    return rows / f"{job.part}-{job.name}.json"


def _jobs(plan: Plan, work: Path, there: Any) -> Iterator[Job]:
    """Yield the jobs, long ones first."""
    scenes: dict[str, Scene] = SCENES | {"push": hub.scene(there)}
    scenes = {name: scenes[name] for name in plan.scenes or scenes}
    stage = Stage(work, there, scenes, not {"interruptions", "conditions"}.isdisjoint(plan.parts))
    if "conditions" in plan.parts:
        for number, name in enumerate(CHECKS):
            if name in plan.checks:
                yield Job("conditions", str(number), lambda name=name: {"name": name, "wrong": CHECKS[name](stage)})
    if "interruptions" in plan.parts:
        names = list(scenes)
        for number in range(plan.n_interruptions):
            name, nth = names[number % len(names)], number // len(names)
            file, about = f"{name.replace(' ', '-')}-{nth}", (name, plan.seed, nth)
            yield Job("interruptions", file, lambda about=about: stage.interrupt(*about))
    if "inputs" in plan.parts:
        for start in range(0, plan.n_inputs, batches.SIZE):
            size = min(batches.SIZE, plan.n_inputs - start)
            about = (plan.seed, start, work, size)
            yield Job("inputs", f"{start}-{size}", lambda about=about: batches.examine(*about))


_waiting: list[Job] = []  # inherited by the workers, which are forked: a job cannot be sent to them


def _do(jobs: list[Job], rows: Path, n_workers: int) -> None:
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    _waiting[:] = jobs
    with ProcessPoolExecutor(n_workers, multiprocessing.get_context("fork")) as pool:
        running = {pool.submit(_work, number): job for number, job in enumerate(jobs)}
        failed = []
        for n_done, future in enumerate(as_completed(running), 1):
            job = running[future]
            if error := future.exception():
                failed.append(f"{job.part} {job.name}: {type(error).__name__}: {error}")
                continue
            row = future.result()
            text = json.dumps(row).replace(str(rows.parents[1]), "build").replace(str(ROOT), ".")
            write_text(_path(rows, job), text + "\n")
            if row["wrong"] or n_done % 20 == 0:
                console.print(f"{n_done}/{len(jobs)} {job.part} {job.name}: {len(row['wrong'])} wrong")
    if failed:
        raise RuntimeError(f"{len(failed)} jobs failed, which the same command does again: {'; '.join(failed[:3])}")


def _work(number: int) -> dict[str, Any]:
    return _waiting[number].do()
