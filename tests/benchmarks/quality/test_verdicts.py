"""What the quality bench says of its results."""

import pytest

from benchmarks.harness.summary import Result, Summary
from benchmarks.quality.verdicts import sentences

SPREAD = (-0.001, 0.0, 0.001, 0.0005, -0.0005)


def result(arm, n_trainable, mean, family="PEFT", control_of=None, spread=SPREAD, rate=0.01):
    losses = {seed: mean + more for seed, more in enumerate(spread, 1)}
    return Result(arm, family, control_of, n_trainable, rate, False, losses, mean, {}, 1.0)


def said(*results):
    return " ".join(sentences(Summary("sst2", list(results), {})))


OURS = result("QPA chunk 96", 1376, 0.40, "QPA")
SHAKY = (0.02, -0.02, 0.01, -0.01, 0.0)


@pytest.mark.parametrize(
    ("rival", "expected"),
    [
        (result("VeRA", 1000, 0.39), "is not on the Pareto front; lower with as few: VeRA (1,000) by 0.0100"),
        (result("VeRA", 1000, 0.41), "is on the Pareto front"),
        (result("VeRA", 1000, 0.399, spread=SHAKY), "is not on the Pareto front"),
        (result("VeRA", 1500, 0.39), "is on the Pareto front; lower within the budget: VeRA (1,500) by 0.0100"),
    ],
)
def test_pareto_verdict(rival, expected):
    assert expected in said(OURS, rival)


@pytest.mark.parametrize(
    ("mean", "spread", "expected"),
    [
        (0.41, SPREAD, "the circuits contribute"),
        (0.39, SPREAD, "the circuits cost quality"),
        (0.401, SHAKY, "no contribution of the circuits is shown"),
        (float("inf"), SPREAD, "is undecided: a run diverged"),
        (0.41, SPREAD[:2], "is undecided: fewer than 3 seeds"),
    ],
)
def test_contribution_of_the_circuits(mean, spread, expected):
    control = result("QPA chunk 96, random", 864, mean, "control", OURS.arm, spread)
    assert expected in said(OURS, control)


@pytest.mark.parametrize(
    ("mean", "expected"), [(0.39, ": worse"), (0.40, ": no difference is shown"), (0.41, ": better")]
)
def test_comparison_with_a_larger_lora(mean, expected):
    lora = result("LoRA r=4", 18432, mean, spread=SPREAD[::-1])
    text = said(OURS, lora)
    assert "QPA chunk 96 (1,376) minus LoRA r=4 (18,432), 7.5% of its size: " in text
    assert expected in text


def test_claims_of_a_table_are_corrected_together():
    spread = [more + 0.0064 * z for more, z in zip(SPREAD, (-1.26, -0.63, 0, 0.63, 1.26), strict=True)]
    first = result("random", 864, 0.41, "control", OURS.arm, spread)  # alone p = 0.025
    others = [result(f"other {i}", 864, 0.40, "control", OURS.arm, SHAKY) for i in range(4)]
    assert "the circuits contribute" in said(OURS, first)
    assert "the circuits contribute" not in said(OURS, first, *others)


def test_arm_is_chosen_by_the_development_part():
    lucky = result("QPA chunk 48", 528, 0.30, "QPA")
    unlucky = Result(**{**vars(lucky), "development": 0.5})
    assert "2,000 parameters: QPA chunk 96" in said(OURS, unlucky, result("VeRA", 1000, 0.41))


def test_rate_at_an_end_of_the_grid_is_said():
    assert "an end of the rates" in said(Result(**{**vars(OURS), "is_at_edge": True}))
