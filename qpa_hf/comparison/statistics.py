"""What runs with a few seeds allow to be said: t-intervals of means, paired differences, Holm's correction of several.

A bootstrap over five values resamples five points: its intervals cover the true mean of normal draws in 83 % of cases.
Student's t knows how uncertain the spread of so few values is, and covers it in 95 %.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from scipy.stats import t as student

FEWEST_SEEDS = 3  # the interval of two values is nine times as long as their distance: it says nothing
SIGNIFICANCE = 0.05

Interval = tuple[float, float]
Key = TypeVar("Key")


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Return the 95 % t-interval of the mean; None for fewer than `FEWEST_SEEDS` values.

    For a paired comparison, pass the differences of the pairs.
    """
    if len(values) < FEWEST_SEEDS:
        return None
    # Three values 1, 2 and 3 have the mean 2 and the standard error 0.58; with t = 4.30 the interval is -0.48 to 4.48.
    mean = statistics.fmean(values)
    half = float(student.ppf(1 - SIGNIFICANCE / 2, len(values) - 1)) * _error(values)
    return mean - half, mean + half


def _error(values: Sequence[float]) -> float:
    """Return the standard error of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Difference:
    """A mean difference of pairs.

    Args:
        mean: the mean of the differences, NaN where a pair has none.
        interval: the 95 % t-interval of the mean; None for too few pairs.
        p: the two-sided probability of so large a mean if there is no difference; None for too few pairs.
    """

    mean: float
    interval: Interval | None = None
    p: float | None = None

    @classmethod
    def of(cls, pairs: Sequence[float]) -> Difference:
        """Return what the differences of some pairs come to."""
        if not pairs or not all(map(math.isfinite, pairs)):
            return cls(math.nan)
        mean = statistics.fmean(pairs)
        interval = mean_interval(pairs)
        return cls(mean) if interval is None else cls(mean, interval, _p(mean, _error(pairs), len(pairs) - 1))

    @property
    def is_below(self) -> bool:
        """Whether the mean is below zero, and significantly so."""
        return self.p is not None and self.p < SIGNIFICANCE and self.mean < 0

    @property
    def is_above(self) -> bool:
        """Whether the mean is above zero, and significantly so."""
        return self.p is not None and self.p < SIGNIFICANCE and self.mean > 0


def _p(mean: float, error: float, n_free: int) -> float:
    if error == 0:  # the pairs are all alike
        return float(mean == 0)
    return 2 * float(student.sf(abs(mean) / error, n_free))


def holm(differences: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """Correct the p-values of all that is claimed together, by Holm's step-down method; intervals stay as they are.

    With the corrected values, the probability that any difference of the group is wrongly called one is at most
    `SIGNIFICANCE`. Those of too few pairs claim nothing and do not count.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    # The smallest of m p-values is multiplied by m, the next by m - 1, and so on. Of 0.01, 0.02 and 0.04 that makes
    # 0.03, 0.04 and 0.04.
    known = {key: one.p for key, one in differences.items() if one.p is not None}
    corrected = {}
    least = 0.0
    for rank, key in enumerate(sorted(known, key=known.__getitem__)):
        least = max(least, min(1.0, (len(known) - rank) * known[key]))  # a larger p-value never becomes a smaller one
        corrected[key] = least
    return {key: replace(one, p=corrected.get(key)) for key, one in differences.items()}
