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
from statistics import fmean

from rich.console import Console

from benchmarks.harness import results
from benchmarks.harness.runs import Job, execute, settle
from benchmarks.harness.study import Measure, Purpose, Row, Study

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
MOST_BEYOND = 6  # rates of an arm beyond the grid: one that learns nothing at any rate would go on for ever


@dataclass(frozen=True)
class Protocol:
    """What is run for each arm, and where.

    Args:
        arms: names of the study's arms.
        rates: learning rates that an arm chooses from.
        n_seeds: number of reported runs of each arm at its chosen rate.
        folder: folder for the file of each run.
        tuning_seeds: seeds of the runs that rates are chosen by; none where there is one rate and nothing to choose.
        is_open: whether an arm that is best at an end of the rates goes on beyond it, until it is not.
        n_jobs: number of processes beside each other.
        device: where torch computes.
        first_seed: seed of the first reported run; the others follow it.
    """

    arms: tuple[str, ...]
    rates: tuple[float, ...]
    n_seeds: int
    folder: Path
    tuning_seeds: tuple[int, ...] = (0,)
    is_open: bool = False
    n_jobs: int = 1
    device: str = "cpu"
    first_seed: int = 1

    def run(self, study: Study, output: Path) -> results.Content:
        """Run all arms on a task and write the task's file; finished runs are read from their files.

        Args:
            study: the task and its arms.
            output: JSON file; its runs are not done again, and its results of other arms are kept.

        Raises:
            FileExistsError: if the file has results with other settings or rates.
        """
        settle()
        known = {"rates": list(self.rates), "tuning_seeds": list(self.tuning_seeds)}
        results.check(output, study.settings, known)
        study.head()  # bad input stops here, and the other processes find what it computed
        results.restore(output, self.folder / study.name)
        with _executor(self.n_jobs) as executor:
            tuning = self._tune(study, executor)
            final = _done(executor, self._final(study, tuning))
        rows = {arm: tuning.get(arm, []) + final.get(arm, []) for arm in self.arms}
        return results.write(output, study, known, rows)

    def _tune(self, study: Study, executor: Executor | None) -> dict[str, list[Row]]:
        """Return the tuning runs of every arm."""
        own = [arm for arm in self.arms if study.arms[arm].tuned_as is None] if self.tuning_seeds else []
        found: dict[str, list[Row]] = {arm: [] for arm in own}
        waiting = {arm: study.arms[arm].rates or self.rates for arm in own}
        while waiting:
            tried = [
                (arm, rate, seed) for arm, rates in waiting.items() for rate in rates for seed in self.tuning_seeds
            ]
            for arm, rows in _done(executor, [self._job(study, arm, "tuning", *one) for arm, *one in tried]).items():
                found[arm] += rows
            if not self.is_open:
                break
            most = (len(self.rates) + MOST_BEYOND) * len(self.tuning_seeds)
            unsettled = [arm for arm in waiting if len(found[arm]) < most]
            waiting = {arm: more for arm in unsettled if (more := beyond(found[arm], study.measure))}
        return found

    def _final(self, study: Study, tuning: dict[str, list[Row]]) -> list[Job]:
        jobs = []
        for arm in self.arms:
            about = study.arms[arm]
            rate = choose(tuning[about.tuned_as or arm], study.measure) if self.tuning_seeds else self.rates[0]
            n_runs = 0 if rate is None else self.n_seeds if about.is_random else 1
            seeds = range(self.first_seed, self.first_seed + n_runs)
            jobs += [self._job(study, arm, "final", rate, seed) for seed in seeds]
        return jobs

    def _job(self, study: Study, arm: str, purpose: Purpose, rate: float, seed: int) -> Job:
        return Job(study, arm, purpose, rate, seed, self.folder, self.device)


def choose(rows: list[Row], measure: Measure) -> float | None:
    """Return the rate that is best on the development part, None if the arm cannot be run."""
    if any("failed" in row for row in rows):
        return None
    scores = defaultdict(list)
    for row in rows:
        scores[row["rate"]].append(measure.score(row))
    return min(scores, key=lambda rate: (fmean(scores[rate]), rate))


def beyond(rows: list[Row], measure: Measure) -> tuple[float, ...]:
    """Return the rate to try next, one or three times a power of ten, if the best is an end of those tried."""
    best, tried = choose(rows, measure), {row.get("rate") for row in rows}
    if best is None or len(tried) == 1 or best not in (min(tried), max(tried)):
        return ()
    tens, is_three = divmod(round(2 * math.log10(best)) + (1 if best == max(tried) else -1), 2)
    return (float(f"{3 if is_three else 1}e{tens}"),)


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
        console.print(f"{len(rows)}/{len(jobs)} {jobs[i].study.name}: {_line(jobs[i], row)}", soft_wrap=True)

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
    measured = row.get("test", row.get("development", {})).get(job.study.measure.name, math.nan)
    return f"{start}: {row.get('diverged') or f'{measured:.4f}'}, {row.get('seconds', 0):.0f} s"
