"""The uncertainty of the test text, from what runs record of their rows."""

import pytest
import torch

from benchmarks.quality.resampling import RESAMPLED, over_rows, resampled

N_ROWS = 500


def losses(seed):
    return torch.rand(N_ROWS, generator=torch.Generator().manual_seed(seed))


def test_interval_is_that_of_the_differences_of_rows():
    one, other = losses(0), losses(1)
    gap = (one - other).double()
    low, high = over_rows(gap.mean().item(), [({RESAMPLED: resampled(one)}, {RESAMPLED: resampled(other)})])
    expected = 1.96 * gap.std().item() / N_ROWS**0.5
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)
    assert (high + low) / 2 == pytest.approx(gap.mean().item())


def test_rows_that_are_as_hard_for_both_are_no_uncertainty():
    hard = losses(0)
    pairs = [({RESAMPLED: resampled(hard)}, {RESAMPLED: resampled(hard + 0.1)})]
    low, high = over_rows(-0.1, pairs)
    assert high - low < 1e-4


def test_seeds_are_averaged_before_rows_are_drawn():
    pairs = [({RESAMPLED: resampled(losses(i))}, {RESAMPLED: resampled(losses(i + 50))}) for i in range(16)]
    many, one = (over_rows(0.0, some) for some in (pairs, pairs[:1]))
    assert many[1] < 0.5 * one[1]


def test_runs_that_recorded_nothing_have_no_interval():
    assert over_rows(0.0, [({}, {RESAMPLED: resampled(losses(0))})]) is None
    assert over_rows(0.0, []) is None
