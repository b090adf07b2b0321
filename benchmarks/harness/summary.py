"""What the runs of a task come to: each arm's result, paired differences between arms, the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.harness.results import Content
from benchmarks.harness.study import Measure, Row
from qpa_hf.comparison.statistics import Difference, Interval, holm, mean_interval

Pair = tuple[str, str]


@dataclass(frozen=True)
class Result:
    """One arm's reported runs.

    Args:
        arm: its name.
        family: whom it stands for.
        control_of: the arm that it answers.
        n_trainable: number of parameters that it trains; None where it trains none of a model.
        rate: its learning rate, chosen on the development part.
        is_at_edge: whether that is the smallest or the largest that was tried.
        losses: the measure on the test part, by seed: lower is better, infinite for a run that diverged.
        development: mean of the measure on the development part, by which arms are chosen among.
        metrics: means of all that is reported on the test part.
        seconds: mean time to train.
    """

    arm: str
    family: str
    control_of: str | None
    n_trainable: int | None
    rate: float
    is_at_edge: bool
    losses: dict[int, float]
    development: float
    metrics: dict[str, float]
    seconds: float

    @property
    def mean(self) -> float:
        """Mean of the measure on the test part."""
        return fmean(self.losses.values())

    @property
    def interval(self) -> Interval | None:
        """Its 95 % interval over the seeds."""
        return mean_interval(list(self.losses.values())) if math.isfinite(self.mean) else None

    def minus(self, other: Result) -> Difference:
        """Return this arm's measure minus another's, paired by seed."""
        return Difference.of([loss - other.losses[seed] for seed, loss in self.losses.items() if seed in other.losses])


@dataclass(frozen=True)
class Summary:
    """All arms' results on a task, in the order of their sizes, and why others are missing."""

    task: str
    results: list[Result]
    failed: dict[str, str]

    def by_name(self) -> dict[str, Result]:
        """Return the results by arm."""
        return {result.arm: result for result in self.results}

    def front(self) -> list[Result]:
        """Return the results that no other with as few or fewer parameters has a lower mean than."""
        found: list[Result] = []
        for result in sorted(self.results, key=lambda one: (one.n_trainable or 0, one.mean)):
            if math.isfinite(result.mean) and (not found or result.mean < found[-1].mean):
                found.append(result)
        return found

    def answers(self) -> list[Pair]:
        """Return each arm that another answers, and that other."""
        known = self.by_name()
        return [(one.control_of, one.arm) for one in self.results if one.control_of in known]

    def claims(self, pairs: Iterable[Pair]) -> dict[Pair, Difference]:
        """Return the differences of all pairs that one table makes claims of, by Holm's correction over them."""
        known = self.by_name()
        return holm({(one, other): known[one].minus(known[other]) for one, other in dict.fromkeys(pairs)})


def summarize(found: Content) -> Summary:
    """Return what the runs of a task's file come to."""
    measure, results = Measure(**found["measure"]), []
    failed = {arm: known["failed"] for arm, known in found["arms"].items() if "failed" in known}
    for arm, known in found["arms"].items():
        own = [row for row in found["runs"] if row["arm"] == arm]
        if not any(row["purpose"] == "final" for row in own):
            continue
        if all("diverged" in row for row in own):
            failed[arm] = f"it diverged in all of {len(own)} runs"
        else:
            results.append(_result(arm, known, own, measure))
    return Summary(found["task"], sorted(results, key=lambda one: (one.n_trainable or 0, one.arm)), failed)


def _result(arm: str, known: dict[str, Any], own: list[Row], measure: Measure) -> Result:
    final = [row for row in own if row["purpose"] == "final"]
    whole = [row for row in final if "diverged" not in row]
    tried = {row["rate"] for row in own if row["purpose"] == "tuning"}
    n_trainable = next(row["n_trainable"] for row in own if "n_trainable" in row)  # a diverged run does not say it
    return Result(
        arm=arm,
        family=known["family"],
        control_of=known["control_of"],
        n_trainable=n_trainable,
        rate=final[0]["rate"],
        is_at_edge=n_trainable != 0 and len(tried) > 1 and final[0]["rate"] in (min(tried), max(tried)),
        losses={row["seed"]: measure.loss(row) for row in final},
        development=fmean(measure.score(row) for row in final),
        metrics={name: _mean(final, name) for name in (whole[0]["test"] if whole else {})},
        seconds=fmean(row["seconds"] for row in whole) if whole else math.nan,
    )


def _mean(final: list[Row], name: str) -> float:
    values = [row.get("test", {}).get(name) for row in final]
    return math.nan if None in values else fmean(values)
