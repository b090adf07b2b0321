"""The Quantum-Train study in miniature: its protocol, its file, its resumption, its report."""

import dataclasses

import pytest

from benchmarks.harness.protocol import Protocol
from benchmarks.harness.report import Writing
from benchmarks.harness.study import Measure
from benchmarks.harness.summary import summarize
from benchmarks.quantum_train import report
from benchmarks.quantum_train.__main__ import TUNING_SEED, study
from benchmarks.quantum_train.arms import ARMS, DIRECT
from benchmarks.quantum_train.digits import Digits
from benchmarks.quantum_train.report import sentences
from benchmarks.quantum_train.study import Networks
from qpa_hf.plots import is_available

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'qpa-hf[quantum-train]'")

TASK = Digits(n_steps=2)
PAIR = ("chunk 64", "chunk 64, random")
RATES = (1e-3, 1e-2)


def run(folder, task=TASK):
    """Run the study in a folder."""
    protocol = Protocol(PAIR, RATES, 3, folder / "runs", tuning_seeds=(TUNING_SEED,))
    return protocol.run(Networks(task), folder / "quantum_train_digits.json")


N_RUNS = len(PAIR) * (len(RATES) + 3)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study: its folder and the file's content."""
    folder = tmp_path_factory.mktemp("done")
    return folder, run(folder)


@pytest.fixture
def counted(monkeypatch):
    """Count runs; `stop_at` interrupts one."""

    class Counted:
        n = 0
        stop_at = None

    def counting(*args):
        Counted.n += 1
        if Counted.n == Counted.stop_at:
            raise KeyboardInterrupt
        return original(*args)

    original = Networks.run
    monkeypatch.setattr(Networks, "run", counting)
    return Counted


def test_every_arm_is_tuned_on_one_part_and_reported_on_the_other(done):
    found = [(row["arm"], "test" in row, "development" in row, row["seed"]) for row in done[1]["runs"]]
    tuning = [(arm, False, True, TUNING_SEED) for arm in PAIR for _ in RATES]
    assert sorted(found) == sorted(tuning + [(arm, True, False, seed) for arm in PAIR for seed in (1, 2, 3)])


def test_reported_rate_is_the_best_on_the_development_part(done):
    for arm in PAIR:
        rows = [row for row in done[1]["runs"] if row["arm"] == arm]
        tuned = {row["rate"]: row["development"]["loss"] for row in rows if row["purpose"] == "tuning"}
        assert {row["rate"] for row in rows if row["purpose"] == "final"} == {min(tuned, key=tuned.get)}


def test_file_says_what_it_was_run_on(done):
    assert {"task", "settings", "protocol", "references", "arms", "runs"} <= done[1].keys()
    assert {"commit", "versions", "machine"} <= done[1]["environments"][0].keys()


def test_same_run_gives_the_same_numbers(done, tmp_path):
    again = run(tmp_path)
    for one, other in zip(done[1]["runs"], again["runs"], strict=True):
        assert [one.get(part) for part in ("development", "test")] == [other.get(p) for p in ("development", "test")]


def test_interrupted_study_goes_on_where_it_stopped(tmp_path, counted):
    counted.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    run(tmp_path)
    run(tmp_path)
    assert counted.n == N_RUNS + 1


def test_runs_of_an_arm_that_meant_something_else_are_done_anew(tmp_path, counted, monkeypatch):
    run(tmp_path)
    monkeypatch.setitem(ARMS, PAIR[1], ARMS["chunk 64, frozen"])
    found = run(tmp_path)
    assert counted.n == N_RUNS * 3 // 2
    assert len(found["runs"]) == N_RUNS


def test_results_of_other_settings_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(FileExistsError, match=r"has results with other settings \(n_steps\), which do not compare"):
        run(tmp_path, dataclasses.replace(TASK, n_steps=3))


def test_rate_of_a_run_that_diverges_is_never_chosen():
    measure = Networks(TASK).measure
    diverged = {"diverged": "The loss is nan at step 3."}
    assert measure.score(diverged) > measure.score({"development": {"loss": 1e9}})


def test_report_has_a_table_the_gaps_and_a_picture(done):
    written = report.write(done[0], ["digits", "co2"])
    text = written[0].read_text(encoding="utf-8")
    assert all(f"{arm}" in text for arm in PAIR)
    assert "chunk 64 (" in text
    assert [path.suffix for path in written] == [".md", ".png"][: 1 + is_available()]


def accuracies(is_higher_better, ours, control):
    """A file's content with two arms and three seeds."""
    arms = dict.fromkeys(PAIR, {"family": "chunks", "control_of": None})
    runs = [
        {"arm": arm, "purpose": "final", "rate": 0.1, "seed": seed, "n_trainable": 9, "seconds": 1}
        | {"test": {"value": value + seed}}
        for arm, value in zip(PAIR, (ours, control), strict=True)
        for seed in range(3)
    ]
    return {
        "task": "none",
        "measure": {"name": "value", "unit": "steps", "is_higher_better": is_higher_better},
        "protocol": {"rates": [0.1]},
        "arms": arms | {PAIR[1]: {"family": "control", "control_of": PAIR[0]}},
        "runs": runs,
    }


@pytest.mark.parametrize(
    ("is_higher_better", "ours", "control", "verdict"),
    [
        (True, 30, 20, "+10.0 steps, p = 0, better"),
        (True, 20, 30, "-10.0 steps, p = 0, worse"),
        (False, 30, 20, "+10.0 steps, p = 0, worse"),
        (False, 20, 30, "-10.0 steps, p = 0, better"),
        (True, 20, 20, "+0.0 steps, p = 1, no difference is shown"),
    ],
)
def test_gap_has_the_sign_that_a_reader_expects(is_higher_better, ours, control, verdict):
    found = accuracies(is_higher_better, ours, control)
    (line,) = sentences(summarize(found), Writing(Measure(**found["measure"])))
    assert line == f"chunk 64 (9) minus chunk 64, random (9): {verdict}."


def test_named_arms_exist():
    assert {DIRECT, *(arm.control_of for arm in ARMS.values() if arm.control_of)} <= set(ARMS)


def test_unknown_task_is_refused_before_any_work():
    with pytest.raises(ValueError, match="Did you mean `digits`"):
        study(task=["digit"])
