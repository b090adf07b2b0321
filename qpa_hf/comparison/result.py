"""What a comparison comes to: a row for each arm, and how far apart they are."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from qpa_hf.comparison.arms import OWN
from qpa_hf.comparison.statistics import FEWEST_SEEDS, Difference, holm
from qpa_hf.training.tasks.metrics import PERPLEXITY, Metric


@dataclass(frozen=True)
class Row:
    """One arm's result."""

    arm: str
    n_trainable: int
    rate: float
    values: list[float]  # of the comparison's metric on the validation examples, by seed
    is_at_edge: bool = False  # the rate is the smallest or the largest one that was tried

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds, if there are several."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass
class Comparison:
    """All arms' results, and why others are missing."""

    rows: list[Row]
    left_out: dict[str, str] = field(default_factory=dict)
    metric: Metric = PERPLEXITY

    def to_dict(self) -> dict[str, Any]:
        """Return everything, with the paired differences, for machines."""
        rows = [asdict(row) | {"mean": row.mean, "spread": row.spread} for row in self.rows]
        differences = {own: {arm: asdict(one) for arm, one in of.items()} for own, of in self.differences().items()}
        return {"metric": self.metric.name, "rows": rows, "left_out": self.left_out, "differences": differences}

    def differences(self) -> dict[str, dict[str, Difference]]:
        """Return the metric of each arm of `OWN` minus each other arm's.

        They are paired by seed; Holm's correction of their p-values is over all of them.
        """
        # With the same seed two arms see the same batches in the same order, so what a seed does to both of them
        # cancels.
        pairs = {
            (own.arm, row.arm): Difference.of([a - b for a, b in zip(own.values, row.values, strict=True)])
            for own in self.rows
            if own.arm in OWN
            for row in self.rows
            if row.arm != own.arm
        }
        corrected = holm(pairs)
        return {own: {row: one for (of, row), one in corrected.items() if of == own} for own, _ in pairs}

    def sentences(self) -> list[str]:
        """Say what the differences say, and no more."""
        lines = [
            f"{row.arm} is best at {row.rate:g}, an end of the grid: it may do better at rates beyond (--rate)."
            for row in self.rows
            if row.is_at_edge
        ]
        for own, differences in self.differences().items():
            lines += [_sentence(own, arm, difference, self.metric) for arm, difference in differences.items()]
        return lines


def _sentence(own: str, arm: str, difference: Difference, metric: Metric) -> str:
    side = "below" if difference.mean < 0 else "above"
    line = f"{own}: {metric.name} {metric.shown(abs(difference.mean))} {side} that of {arm}"
    if difference.interval is None:
        return f"{line}; fewer than {FEWEST_SEEDS} seeds are too few to tell a difference from chance."
    low, high = difference.interval
    interval = f"{metric.shown(low)} to {metric.shown(high)}"
    return f"{line} (95 % interval of the difference {interval}; p = {difference.p:.2g} after Holm's correction)."
