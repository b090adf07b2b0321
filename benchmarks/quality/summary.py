"""What the runs of a task come to: each arm's result, paired differences between arms, the Pareto front."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from benchmarks.quality.merged import Merged
from benchmarks.quality.protocol import cross_entropy
from qpa_hf.comparison import mean_interval

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """A paired difference in test cross-entropy, in nats: its mean and its 95 % interval, None for too few seeds."""

    mean: float
    interval: Interval | None

    @property
    def is_below(self) -> bool:
        """Whether the interval is below zero."""
        return self.interval is not None and self.interval[1] < 0

    @property
    def is_above(self) -> bool:
        """Whether the interval is above zero."""
        return self.interval is not None and self.interval[0] > 0


@dataclass(frozen=True)
class Result:
    """One arm's reported runs.

    Args:
        arm: its name.
        family: whom it stands for.
        control_of: the arm whose circuits it replaces.
        n_trainable: numbers that it trains.
        rate: its learning rate, chosen on the development part.
        is_at_edge: whether that is the smallest or the largest that was tried.
        losses: test cross-entropy in nats, by seed; infinite for a run that diverged.
        development: mean development cross-entropy, on which arms are chosen among.
        metrics: means of the other test metrics.
        seconds: mean time to train.
    """

    arm: str
    family: str
    control_of: str | None
    n_trainable: int
    rate: float
    is_at_edge: bool
    losses: dict[int, float]
    development: float
    metrics: dict[str, float]
    seconds: float

    @property
    def mean(self) -> float:
        """Mean test cross-entropy in nats."""
        return statistics.fmean(self.losses.values())

    @property
    def interval(self) -> Interval | None:
        """Its 95 % interval over the seeds."""
        return mean_interval(list(self.losses.values())) if math.isfinite(self.mean) else None

    def minus(self, other: Result) -> Difference:
        """Return this arm's cross-entropy minus another's, paired by seed."""
        pairs = [loss - other.losses[seed] for seed, loss in self.losses.items() if seed in other.losses]
        if not pairs or not all(map(math.isfinite, pairs)):
            return Difference(math.nan, None)
        return Difference(statistics.fmean(pairs), mean_interval(pairs))


@dataclass(frozen=True)
class Summary:
    """All arms' results on a task, in the order of their trainable numbers, and why others are missing."""

    task: str
    results: list[Result]
    failed: dict[str, str]

    def by_name(self) -> dict[str, Result]:
        """Return the results by arm."""
        return {result.arm: result for result in self.results}

    def front(self) -> list[Result]:
        """Return the results that no other with as few or fewer numbers has a lower mean than."""
        found: list[Result] = []
        for result in sorted(self.results, key=lambda one: (one.n_trainable, one.mean)):
            if math.isfinite(result.mean) and (not found or result.mean < found[-1].mean):
                found.append(result)
        return found


def summarize(merged: Merged) -> Summary:
    """Return what a merged file's runs come to."""
    final: dict[str, list[Any]] = defaultdict(list)
    tried: dict[str, set[float]] = defaultdict(set)
    sizes: dict[str, int] = {}  # a run that has diverged does not say its own
    for row in merged["runs"]:
        if "n_trainable" in row:
            sizes[row["arm"]] = row["n_trainable"]
        if row["purpose"] == "final":
            final[row["arm"]].append(row)
        else:
            tried[row["arm"]].add(row["rate"])
    results = [_result(arm, merged["arms"][arm], rows, tried[arm], sizes[arm]) for arm, rows in final.items()]
    failed = {arm: known["failed"] for arm, known in merged["arms"].items() if "failed" in known}
    results = sorted(results, key=lambda result: (result.n_trainable, result.arm))
    return Summary(merged["task"], results, failed)


def _result(arm: str, known: dict[str, Any], rows: list[Any], tried: set[float], n_trainable: int) -> Result:
    whole = [row for row in rows if "diverged" not in row]
    names = [name for name in (whole[0]["test"] if whole else {}) if name != "cross_entropy"]
    rate = rows[0]["rate"]
    return Result(
        arm=arm,
        family=known["family"],
        control_of=known["control_of"],
        n_trainable=n_trainable,
        rate=rate,
        is_at_edge=n_trainable > 0 and len(tried) > 1 and rate in (min(tried), max(tried)),
        losses={row["seed"]: cross_entropy(row, "test") for row in rows},
        development=statistics.fmean(cross_entropy(row, "development") for row in rows),
        metrics={name: statistics.fmean(row["test"].get(name) or math.nan for row in rows) for name in names},
        seconds=statistics.fmean(row["seconds"] for row in whole) if whole else math.nan,
    )
