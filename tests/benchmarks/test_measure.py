"""What the benchmarks' figures rest on: turns, ratios, peak memory, counts, judgements."""

import os
import signal

import pytest
import torch

from benchmarks.measure import (
    check_agreement,
    in_fresh_process,
    n_operations,
    paired_ratio,
    peak_bytes,
    take_turns,
)
from benchmarks.record import worst

MEGABYTE = 2**20


def test_every_arm_takes_its_turn_in_every_round():
    times = take_turns({"a": lambda: None, "b": lambda: None}, n_rounds=4)
    assert {name: len(taken) for name, taken in times.items()} == {"a": 4, "b": 4}


def test_a_budget_that_will_not_do_leaves_three_rounds():
    times = take_turns({"a": lambda: torch.randn(1000).sort()}, n_rounds=50, budget=1e-9)
    assert len(times["a"]) == 3


def test_paired_ratio_is_not_misled_by_rounds_that_were_slow_for_both():
    assert paired_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == {"ratio": 2.0, "low": 2.0, "high": 2.0}


def test_paired_ratio_interval_holds_the_median():
    found = paired_ratio([1.0, 1.1, 1.2, 1.3, 1.4], [1.0] * 5)
    assert found["low"] < found["ratio"] == 1.2 < found["high"]


def peak_of_an_array(n_bytes):
    torch.ones(1)  # torch's own start
    return peak_bytes(lambda: torch.ones(n_bytes, dtype=torch.uint8))


def test_peak_sees_what_was_freed_again():
    assert 64 * MEGABYTE <= in_fresh_process(peak_of_an_array, 64 * MEGABYTE) < 66 * MEGABYTE


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_for_its_memory_gives_none():
    assert in_fresh_process(kill) is None


def test_views_are_no_operations():
    x = torch.randn(4, 4)
    assert n_operations(lambda: x.t()[0].unsqueeze(0).exp() + 1) == 2


def test_disagreement_is_refused():
    check_agreement("theirs", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0001]))
    with pytest.raises(RuntimeError, match="theirs computes something else"):
        check_agreement("theirs", torch.tensor([2.0, 1.0]), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("sign", "bound", "where", "is_met"),
    [(">=", 5, "slow", False), (">=", 2, "slow", True), ("<=", 5, "fast", False), ("<=", 7, "fast", True)],
)
def test_a_target_is_judged_by_its_worst_measurement(sign, bound, where, is_met):
    target = worst("speed", sign, bound, {"slow": 3.0, "fast": 6.0})
    assert (target.where, target.is_met) == (where, is_met)


def test_a_target_that_was_not_measured_is_neither_met_nor_missed():
    assert worst("speed", ">=", 5, {}).is_met is None
