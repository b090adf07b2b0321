"""The same protocol for every arm: rates chosen on the development part, then several seeds on the test part."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from rich.console import Console

from benchmarks.quality import merged
from benchmarks.quality.arms import BASE
from benchmarks.quality.runs import Job, Row, execute, settle
from benchmarks.quality.task import Task

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEED = 0  # the seeds that are reported start after it
MOST_BEYOND = 6  # rates of an arm beyond the grid: one that learns nothing at any rate would go on for ever


@dataclass(frozen=True)
class Protocol:
    """What is run for each arm, and where.

    Args:
        arms: keys of `ARMS`.
        rates: learning rates that every arm chooses from.
        is_open: whether an arm that is best at an end of them goes on beyond it, until it is not.
        n_seeds: reported runs of each arm at its chosen rate.
        n_jobs: processes beside each other.
        device: where torch computes.
        folder: for the file of each run.
    """

    arms: tuple[str, ...]
    rates: tuple[float, ...]
    is_open: bool
    n_seeds: int
    n_jobs: int
    device: str
    folder: Path

    def run(self, task: Task, output: Path) -> merged.Merged:
        """Run all arms on a task and write the merged result; finished runs are read from their files.

        Args:
            task: see `Task`.
            output: JSON file; its runs are not done again, and its results of other arms are kept.

        Raises:
            FileExistsError: if the file has results with other settings or rates.
        """
        settle()
        known = {"rates": list(self.rates), "tuning_seed": TUNING_SEED}
        merged.check(output, task.settings, known)
        task.base()  # bad input stops here, and the other processes find what it computed
        merged.restore(output, self.folder / task.name)
        with _executor(self.n_jobs) as executor:
            tuning = self._tune(task, executor)
            chosen = {arm: choose(rows) for arm, rows in tuning.items()}
            seeds = range(TUNING_SEED + 1, TUNING_SEED + 1 + self.n_seeds)
            final = _done(
                executor,
                [self._job(task, arm, "final", r, s) for arm, r in chosen.items() if r is not None for s in seeds],
            )
        rows = {arm: tuning[arm] + final.get(arm, []) for arm in self.arms}
        return merged.write(output, task, known, rows)

    def _tune(self, task: Task, executor: Executor | None) -> dict[str, list[Row]]:
        """Return the tuning runs of every arm."""
        found: dict[str, list[Row]] = {arm: [] for arm in self.arms}
        waiting = {arm: self.rates[:1] if arm == BASE else self.rates for arm in self.arms}  # BASE trains nothing
        while waiting:
            jobs = [self._job(task, arm, "tuning", rate) for arm, rates in waiting.items() for rate in rates]
            for arm, rows in _done(executor, jobs).items():
                found[arm] += rows
            if not self.is_open:
                break
            unsettled = [arm for arm in waiting if len(found[arm]) < len(self.rates) + MOST_BEYOND]
            waiting = {arm: more for arm in unsettled if (more := beyond(found[arm]))}
        return found

    def _job(
        self, task: Task, arm: str, purpose: Literal["tuning", "final"], rate: float, seed: int = TUNING_SEED
    ) -> Job:
        return Job(task, arm, purpose, rate, seed, self.device, self.folder)


def choose(rows: list[Row]) -> float | None:
    """Return the learning rate that is best on the development part, None if the arm cannot be run."""
    if any("failed" in row for row in rows):
        return None
    return min(rows, key=lambda row: (cross_entropy(row, "development"), row["rate"]))["rate"]


def beyond(rows: list[Row]) -> tuple[float, ...]:
    """Return the rate to try next, one or three times a power of ten, if the best is an end of those tried."""
    best, tried = choose(rows), [row.get("rate") for row in rows]
    if best is None or len(tried) == 1 or best not in (min(tried), max(tried)):
        return ()
    tens, is_three = divmod(round(2 * math.log10(best)) + (1 if best == max(tried) else -1), 2)
    return (float(f"{3 if is_three else 1}e{tens}"),)


def cross_entropy(row: Row, part: str) -> float:
    """Return a run's cross-entropy in nats; that of a run that has diverged is infinite."""
    value = row[part]["cross_entropy"]
    return math.inf if value is None else value


@contextmanager
def _executor(n_jobs: int) -> Iterator[Executor | None]:
    if n_jobs == 1:
        yield None
        return
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn"), initializer=settle) as executor:
        yield executor


def _done(executor: Executor | None, jobs: list[Job]) -> dict[str, list[Row]]:
    """Return the rows of all jobs, by arm, in the jobs' order, and say how far it has come."""
    console = Console(stderr=True, highlight=False)
    rows: dict[int, Row] = {}

    def note(i: int, row: Row) -> None:
        rows[i] = row
        console.print(f"{len(rows)}/{len(jobs)} {jobs[i].task.name}: {_line(jobs[i], row)}")

    if executor is None:
        for i, job in enumerate(jobs):
            note(i, execute(job))
    else:
        waiting = {executor.submit(execute, job): i for i, job in enumerate(jobs)}
        for future in as_completed(waiting):
            note(waiting[future], future.result())
    found: dict[str, list[Row]] = defaultdict(list)
    for i, job in enumerate(jobs):
        found[job.arm].append(rows[i])
    return found


def _line(job: Job, row: Row) -> str:
    start = f"{job.arm}, {job.purpose}, rate {job.rate:g}, seed {job.seed}"
    if "failed" in row:
        return f"{start}: failed, {row['failed']}"
    return f"{start}: cross-entropy {cross_entropy(row, 'development'):.4f}, {row.get('seconds', 0):.0f} s"
