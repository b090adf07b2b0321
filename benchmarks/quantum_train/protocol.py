"""The same protocol for every arm: a rate chosen on the development part, then several seeds on the test part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from rich.console import Console

from benchmarks.quality.merged import Merged
from benchmarks.quantum_train.arms import ARMS
from benchmarks.quantum_train.fitting import Row, execute
from benchmarks.quantum_train.results import Results
from benchmarks.quantum_train.task import Part, Task

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
TUNING_SEED = 101  # the first one; the seeds that are reported are 1, 2, ...


@dataclass(frozen=True)
class Protocol:
    """What is run for each arm.

    Args:
        arms: keys of `ARMS`.
        rates: learning rates that every arm chooses from.
        n_seeds: reported runs of each arm at its chosen rate.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    rates: tuple[float, ...] = RATES
    n_seeds: int = 5

    def run(self, task: Task, path: Path) -> Merged:
        """Run all arms on a task, but for what the file has, and return the file's content.

        Raises:
            FileExistsError: if the file has results with other settings or rates.
        """
        torch.set_num_threads(1)
        tuning_seeds = range(TUNING_SEED, TUNING_SEED + task.n_tuning)
        results = Results(path, task, {"rates": list(self.rates), "tuning_seeds": list(tuning_seeds)})
        for name in self.arms:
            results.expect(name, ARMS[name], ARMS[name].plan(task))
            tuning = [self._runs(results, task, name, "development", rate, tuning_seeds) for rate in self.rates]
            rate = min(tuning, key=lambda rows: fmean(map(loss, rows)))[0]["rate"]
            self._runs(results, task, name, "test", rate, range(1, self.n_seeds + 1))
        return results.content

    def _runs(
        self, results: Results, task: Task, name: str, part: Part, rate: float, seeds: Sequence[int]
    ) -> list[Row]:
        return [
            results.find(name, part, rate, seed) or self._run(results, task, name, part, rate, seed) for seed in seeds
        ]

    def _run(self, results: Results, task: Task, name: str, part: Part, rate: float, seed: int) -> Row:
        row = results.add(name, execute(task, ARMS[name].plan(task), part, rate, seed))
        found = row.get("diverged") or f"{task.measure} {row[task.measure]:.4g}"
        line = f"{task.name}: {name}, {part}, rate {rate:g}, seed {seed}: {found}, {row['seconds']:.0f} s"
        Console(stderr=True, highlight=False).print(line, soft_wrap=True)
        return row


def loss(row: Row) -> float:
    """Return what a run is judged by when rates are chosen; that of a run that has diverged is infinite."""
    return math.inf if "diverged" in row else row["loss"]
