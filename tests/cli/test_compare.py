"""`qpa compare`: every arm at its own learning rate, recorded so that it is never run twice."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest

from qpa_hf.comparison import runs
from qpa_hf.comparison.arms import ARMS
from qpa_hf.comparison.result import Comparison, Row
from qpa_hf.comparison.statistics import Difference
from qpa_hf.demo.arms import BASE
from qpa_hf.training.run import TrainingError
from qpa_hf.training.settings import read_settings

ARMS_RUN = ("LoRA r=1", "QPA", "QPA, random numbers")


@pytest.fixture
def options(tiny):
    chosen = [word for arm in ARMS_RUN for word in ("--arm", arm)]
    return [*tiny, "--set", "training.max_steps=1", *chosen, "--rate", "1e-2", "--rate", "1e-9"]


def test_each_arm_takes_its_better_rate_and_finished_runs_stay(qpa, options, tmp_path, monkeypatch):
    result = json.loads(qpa("compare", "--output", tmp_path, *options, "--json").out)
    assert [row["arm"] for row in result["rows"]] == list(ARMS_RUN)
    for row in result["rows"]:
        tuned = [json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*-tuning-*")]
        scores = {run["learning_rate"]: run["perplexity"] for run in tuned if run["arm"] == row["arm"]}
        assert row["rate"] == min(scores, key=scores.get)
    assert (tmp_path / "comparison.png").is_file()
    monkeypatch.setattr(runs, "fit", None)  # a second run of anything would fail
    assert json.loads(qpa("compare", "--output", tmp_path, *options, "--json").out) == result


def test_gradient_bases_have_their_controls_beside_them_whatever_the_adapter_is(qpa, tiny, tmp_path):
    arms = [arm for arm in ARMS if arm.startswith("QPA, gradient bases")]
    chosen = [word for arm in arms for word in ("--arm", arm)]
    run = [*tiny, "--set", "training.max_steps=1", "--set", "adapter.chunk_size=8", "--rate", "1e-2", *chosen]
    result = json.loads(qpa("compare", "--output", tmp_path, *run, "--json").out)
    sizes = {row["arm"]: row["n_trainable"] for row in result["rows"]}
    own, *controls = arms
    n_angles = 4 * 2 * 3  # four circuits, two layers, three qubits: six chunks
    assert sizes == {own: 1_000 + n_angles, controls[0]: 1_000, controls[1]: 3 * 20 * 20}
    assert list(result["differences"][own]) == controls


def test_unknown_arm_is_refused_with_the_nearest(qpa, tiny, tmp_path):
    result = qpa("compare", "--output", tmp_path, *tiny, "--arm", "Vero")
    assert result.code == 2
    assert "Did you mean `VeRA`" in result.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "-1"), "`training.learning_rate`="),
        (("--rate", "nan"), "`training.learning_rate`="),
        (("--set", "training.load_best_model_at_end=true"), "its runs save no checkpoints"),
        (("--set", "training.seed=5"), "say how many with --seeds"),
        (("--set", "adapter.init_seed=5"), "say how many with --seeds"),
    ],
    ids=["rate below zero", "rate that is no number", "best checkpoint", "seed", "seed of the adapter"],
)
def test_bad_input_of_a_comparison_is_refused_before_any_run(options, message, qpa, tiny, tmp_path):
    result = qpa("compare", "--output", tmp_path / "c", *tiny, "--arm", "LoRA r=1", *options)
    assert (result.code, message in result.err) == (2, True)
    assert not (tmp_path / "c").exists()


def test_arm_that_is_named_twice_is_one_row(qpa, tiny, tmp_path):
    arms = ["--arm", "LoRA r=1", "--arm", "LoRA r=1", "--rate", "1e-2", "--set", "training.max_steps=1"]
    assert len(json.loads(qpa("compare", "--output", tmp_path, *tiny, *arms, "--json").out)["rows"]) == 1


def test_arm_that_does_not_fit_the_model_is_left_out_with_its_reason(qpa, tiny, tmp_path, monkeypatch):
    def refuse(settings, seed):
        raise ValueError("no such layers")

    monkeypatch.setitem(ARMS, "VeRA", refuse)
    arms = ["--arm", "VeRA", "--arm", "LoRA r=1", "--rate", "1e-2", "--set", "training.max_steps=1"]
    result = json.loads(qpa("compare", "--output", tmp_path, *tiny, *arms, "--json").out)
    assert result["left_out"] == {"VeRA": "no such layers"}


def test_a_rate_at_which_an_arm_diverges_is_no_choice(qpa, tiny, tmp_path, monkeypatch):
    def diverging(*args, learning_rate, **kwargs):
        if learning_rate > 1:
            raise TrainingError("`angles` has NaN")
        return fit(*args, learning_rate=learning_rate, **kwargs)

    fit = runs.fit
    monkeypatch.setattr(runs, "fit", diverging)
    arms = ["--arm", "LoRA r=1", "--rate", "1e-2", "--rate", "1e4", "--set", "training.max_steps=1"]
    result = json.loads(qpa("compare", "--output", tmp_path, *tiny, *arms, "--json").out)
    assert ([row["rate"] for row in result["rows"]], result["left_out"]) == ([0.01], {})


@pytest.mark.parametrize("purpose", ["tuning", "final"])
def test_arm_without_a_finite_perplexity_is_left_out(purpose, qpa, tiny, tmp_path, monkeypatch):
    def diverging(config, settings, data, *args, **kwargs):
        finished = fit(config, settings, data, *args, **kwargs)
        is_tuning = data.validation_split == "development"
        is_hit = config.peft_type == "QPA" and is_tuning == (purpose == "tuning")
        return dataclasses.replace(finished, after={"perplexity": math.inf}) if is_hit else finished

    fit = runs.fit
    monkeypatch.setattr(runs, "fit", diverging)
    arms = ["--arm", "QPA", "--arm", "LoRA r=1", "--rate", "1e-2", "--set", "training.max_steps=1", "--seeds", "2"]
    result = json.loads(qpa("compare", "--output", tmp_path, *tiny, *arms, "--json").out)
    assert ([row["arm"] for row in result["rows"]], list(result["left_out"])) == (["LoRA r=1"], ["QPA"])


def test_layers_that_qpa_leaves_out_are_left_out_everywhere(tiny):
    settings = read_settings(
        model="any", data={"train": ["a.txt"]}, adapter={"target_modules": "all-linear", "exclude_modules": ["c_fc"]}
    )
    assert ARMS["LoRA r=1"](settings, 0).exclude_modules == {"c_fc"}


@pytest.mark.parametrize("arm", ARMS)
def test_biases_that_qpa_trains_are_trained_everywhere(arm):
    adapter = {"target_modules": ["c_attn"], "bias": "all"}
    settings = read_settings(model=str(BASE), data={"train": ["a.txt"]}, adapter=adapter)
    assert ARMS[arm](settings, 0).bias == "all"


def test_one_block_of_text_is_too_little(qpa, tiny, book, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text(book.read_text(encoding="utf-8")[:100], encoding="utf-8")
    options = [short if option == book else option for option in tiny]
    result = qpa("compare", "--output", tmp_path / "c", *options, "--validation", book)
    assert (result.code, "only 1 of the blocks" in result.err) == (2, True)
    assert not (tmp_path / "c").exists()  # nor is an earlier comparison there removed


def test_model_that_no_arm_fits_is_bad_input(qpa, tiny, tmp_path):
    result = qpa("compare", "--output", tmp_path, *tiny, "--set", "data.block_length=300", "--arm", "LoRA r=1")
    assert result.code == 2
    assert "No arm can be run; LoRA r=1" in result.err


@pytest.mark.parametrize(("best", "is_at_edge"), [(3e-2, False), (1e-1, True)])
def test_ends_of_the_grid_are_found_in_any_order(best, is_at_edge, qpa, tiny, tmp_path, monkeypatch):
    def fitted(*args, learning_rate, **kwargs):
        perplexity = 2 + abs(learning_rate - best)
        scores = {"before": {"perplexity": 9.0}, "after": {"perplexity": perplexity}}
        return SimpleNamespace(n_trainable=1, **scores, losses=[])

    monkeypatch.setattr(runs, "fit", fitted)
    rates = [word for rate in ("3e-2", "1e-1", "1e-2") for word in ("--rate", rate)]
    result = json.loads(qpa("compare", "--output", tmp_path, *tiny, "--arm", "LoRA r=1", *rates, "--json").out)
    assert [(row["rate"], row["is_at_edge"]) for row in result["rows"]] == [(best, is_at_edge)]


def test_best_rate_at_the_end_of_the_grid_is_said():
    row = Row("QPA", 10, 0.1, [3.0], is_at_edge=True)
    assert "may do better at rates beyond" in Comparison([row]).sentences()[0]


def test_differences_are_paired_by_seed():
    rows = [Row("QPA", 10, 0.1, [3.0, 5.0, 7.0]), Row("LoRA r=1", 20, 0.1, [4.0, 6.0, 8.0])]
    assert Comparison(rows).differences() == {"QPA": {"LoRA r=1": Difference(-1.0, (-1.0, -1.0), 0.0)}}


def test_too_few_seeds_claim_nothing():
    rows = [Row("QPA", 10, 0.1, [3.0, 5.0]), Row("LoRA r=1", 20, 0.1, [4.0, 6.0])]
    assert "too few" in Comparison(rows).sentences()[0]
