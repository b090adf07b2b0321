"""How much of a difference is the choice of the test text: a paired bootstrap over its rows.

A run records by how much its mean loss would be another one on resampled rows. The rows of every resample are the same
in all runs on as many rows, so that what is left of the difference of two runs is the bootstrap of the difference: no
run has to keep the losses of its rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from benchmarks.harness.study import Row
from qpa_hf.comparison.statistics import Interval

RESAMPLED = "test_resampled"  # key of a run
N_RESAMPLES = 200  # their spread is known to 5 %
UNIT = 1e-5  # nats
NORMAL = statistics.NormalDist().inv_cdf(0.975)


@lru_cache(maxsize=1)
def _draws(n_rows: int) -> Tensor:
    """Return the rows of every resample, shape (N_RESAMPLES, n_rows)."""
    return torch.randint(n_rows, (N_RESAMPLES, n_rows), generator=torch.Generator().manual_seed(0))


def resampled(losses: Tensor) -> list[int]:
    """Return the mean loss of every resample minus that of all rows, in units of 1e-5 nats.

    Args:
        losses: shape (n_rows,).
    """
    losses = losses.double()
    shifts = losses[_draws(len(losses))].mean(1) - losses.mean()
    return [round(shift / UNIT) for shift in shifts.tolist()]


def over_rows(mean: float, pairs: Sequence[tuple[Row, Row]]) -> Interval | None:
    """Return the 95 % interval of a mean difference over the choice of the rows; None if a run has recorded none.

    The seeds are taken as they are: this is the uncertainty that the t-interval over seeds leaves out.

    Args:
        mean: the mean difference.
        pairs: runs of both arms, of the same seed.
    """
    if not pairs or any(RESAMPLED not in row for pair in pairs for row in pair):
        return None
    shifts = [[a - b for a, b in zip(one[RESAMPLED], other[RESAMPLED], strict=True)] for one, other in pairs]
    means = [statistics.fmean(values) for values in zip(*shifts, strict=True)]
    half = NORMAL * UNIT * statistics.stdev(means)
    return mean - half, mean + half


def by_seed(runs: Sequence[Row], arm: str) -> Mapping[int, Row]:
    """Return an arm's reported runs by seed."""
    return {row["seed"]: row for row in runs if row["arm"] == arm and row["purpose"] == "final"}
