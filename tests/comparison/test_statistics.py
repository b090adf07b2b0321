"""The statistics of all studies: coverage of intervals, paired differences, Holm's correction."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from qpa_hf.comparison.statistics import Difference, holm, mean_interval

N_DRAWS = 10_000


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_interval_covers_the_mean_of_normal_draws_as_often_as_it_says(n_seeds):
    draws = np.random.default_rng(0).normal(size=(N_DRAWS, n_seeds))
    intervals = np.array([mean_interval(values) for values in draws.tolist()])
    covered = np.mean((intervals[:, 0] < 0) & (intervals[:, 1] > 0))
    assert 0.94 <= covered <= 0.96


def test_difference_is_the_paired_test_of_scipy():
    pairs = [0.1, -0.2, 0.4, 0.3, 0.2]
    found, expected = Difference.of(pairs), ttest_1samp(pairs, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()))


@pytest.mark.parametrize(
    ("pairs", "interval", "p"),
    [
        ([0.1, 0.2], None, None),
        ([0.5, 0.5, 0.5], (0.5, 0.5), 0.0),
        ([0.0, 0.0, 0.0], (0.0, 0.0), 1.0),
    ],
    ids=["too few", "all alike", "all zero"],
)
def test_difference_without_a_spread(pairs, interval, p):
    found = Difference.of(pairs)
    assert (found.interval, found.p) == (interval, p)


@pytest.mark.parametrize("pairs", [[], [1.0, math.inf, 2.0]], ids=["none", "diverged"])
def test_difference_without_a_mean_claims_nothing(pairs):
    found = Difference.of(pairs)
    assert math.isnan(found.mean)
    assert (found.is_above, found.is_below) == (False, False)


def test_holm_corrects_as_printed():
    before = {name: Difference(1.0, (0.0, 2.0), p) for name, p in zip("abcd", (0.01, 0.04, 0.03, 0.005), strict=True)}
    after = {name: one.p for name, one in holm(before).items()}
    assert after == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_holm_does_not_count_differences_of_too_few_pairs():
    found = holm({"known": Difference(1.0, (0.5, 1.5), 0.04), "unknown": Difference(1.0)})
    assert (found["known"].p, found["unknown"].p) == (0.04, None)


def test_one_of_many_differences_is_not_significant_for_its_own_p_value_alone():
    found = holm({i: Difference(1.0, (0.1, 1.9), 0.04 if i == 0 else 0.5) for i in range(10)})
    assert not found[0].is_above
