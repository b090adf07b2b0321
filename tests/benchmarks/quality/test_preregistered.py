"""The pre-registered test's rule, and that nothing is said before all of it has been run."""

import dataclasses

import pytest

from benchmarks.harness.summary import Result
from benchmarks.quality import preregistered
from benchmarks.quality.__main__ import bench
from benchmarks.quality.arms import ARMS
from benchmarks.quality.preregistered import CONTROL, DIRECT, FIRST_SEED, N_SEEDS, NO, TASKS

QPA, ROTATION = "QPA gradient r=20", "aligned orthogonal"
JITTER = (0.0, 0.001, -0.001, 0.0005, -0.0005)
LEAD = 0.05


def result(arm, mean):
    seeds = range(FIRST_SEED, FIRST_SEED + N_SEEDS)
    losses = {seed: mean + JITTER[(seed + len(arm)) % len(JITTER)] for seed in seeds}
    return Result(arm, "", None, 1000, 0.01, False, losses, mean, {}, 1.0)


def results(**changes):
    """All results level but those named, by task: {arm: mean}."""
    found = {(task, arm): result(arm, 0.5) for task in TASKS for arm in preregistered.ARMS}
    for task, means in changes.items():
        for arm, mean in means.items():
            found[task, arm] = result(arm, mean)
    return found


BETTER, WORSE = {QPA: 0.5 - LEAD}, {QPA: 0.5 + LEAD}


@pytest.mark.parametrize(
    ("changes", "is_yes"),
    [
        ({}, False),
        ({"mnist": BETTER}, False),
        ({"mnist": BETTER, "sst2": BETTER}, True),
        ({"mnist": BETTER, "sst2": BETTER, "wikitext": BETTER}, True),
        ({"mnist": BETTER, "sst2": BETTER, "wikitext": WORSE}, False),
        ({"mnist": BETTER, "sst2": BETTER | {CONTROL[QPA]: 0.5 - LEAD}}, False),
        ({"mnist": BETTER, "sst2": BETTER | {DIRECT: 0.5 - LEAD}}, False),
        ({"mnist": BETTER, "sst2": BETTER, "wikitext": {CONTROL[QPA]: 0.5 - LEAD}}, False),
        ({"mnist": {ROTATION: 0.4}, "sst2": {ROTATION: 0.4}}, False),
    ],
)
def test_rule(changes, is_yes):
    first = preregistered.verdict(results(**changes))[0]
    assert first.startswith("Circuits: yes") == is_yes
    assert (NO in first) != is_yes


def test_rotation_is_judged_by_the_same_rule():
    found = results(mnist={ROTATION: 0.4}, sst2={ROTATION: 0.4})
    assert preregistered.verdict(found)[1].endswith("yes.")
    assert preregistered.verdict(results())[1].endswith("no.")


def test_run_that_diverged_is_not_better():
    found = results(mnist=BETTER, sst2=BETTER)
    lost = found["mnist", QPA]
    found["mnist", QPA] = dataclasses.replace(lost, losses=lost.losses | {FIRST_SEED: float("inf")})
    assert NO in preregistered.verdict(found)[0]


def test_no_verdict_while_an_arm_is_missing():
    found = results(mnist=BETTER, sst2=BETTER)
    del found["wikitext", "QPA gradient r=20, bits matched"]
    assert preregistered.verdict(found) == ["No verdict: 1 of 27 arms on the tasks lack reported runs."]


def content(n_runs):
    runs = [
        {"arm": arm, "purpose": "final", "seed": FIRST_SEED + i, "rate": 0.01, "n_trainable": 1000, "seconds": 1.0}
        | {part: {"cross_entropy": 0.5 + 0.001 * i} for part in ("development", "test")}
        for arm in preregistered.ARMS[:2]
        for i in range(n_runs)
    ]
    arms = {arm: {"family": "", "control_of": None} for arm in preregistered.ARMS[:2]}
    measure = {"name": "cross_entropy", "unit": "nats", "is_higher_better": False, "chosen_by": ""}
    return {"task": "mnist", "measure": measure, "arms": arms, "runs": runs}


@pytest.mark.parametrize(("n_runs", "n_done"), [(N_SEEDS, 2), (N_SEEDS - 1, 0)])
def test_arm_counts_with_all_its_runs_alone(n_runs, n_done):
    found = {"mnist": content(n_runs)}
    text = "\n".join(preregistered.report(found))
    assert len(preregistered.done(found)) == n_done
    assert f"{2 * n_runs} of 270 reported runs are done" in text
    assert "No verdict" in text
    assert NO not in text


def test_arms_and_what_they_are_compared_with_exist():
    assert {DIRECT, *CONTROL, *CONTROL.values()} <= set(preregistered.ARMS) <= set(ARMS)


@pytest.mark.parametrize("changed", [{"arm": [QPA]}, {"rate": [0.01]}, {"seeds": 3}, {"quick": True}])
def test_other_arms_rates_or_seeds_are_refused(changed):
    with pytest.raises(ValueError, match="its own arms, rates and seeds"):
        bench(preregistered=True, **changed)


def test_bench_without_a_task_is_refused():
    with pytest.raises(ValueError, match="No task is named"):
        bench()
