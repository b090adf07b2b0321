"""The quality bench in miniature: its protocol, its files, its resumption, its report."""

import copy
import dataclasses
import json
import math
import shutil

import pytest
import tiny
import torch
from transformers import AutoTokenizer, BertModel

from benchmarks.harness import results, runs
from benchmarks.harness.protocol import Protocol, beyond, choose
from benchmarks.harness.summary import summarize
from benchmarks.quality import report, study, verdicts
from benchmarks.quality.__main__ import bench
from benchmarks.quality.arms import ARMS, BASE, CORES_OF_OTHERS, LORA, QUICK
from benchmarks.quality.mnist import _load as load_images
from benchmarks.quality.sst2 import _load
from benchmarks.quality.study import CROSS_ENTROPY, Adapters
from benchmarks.quality.wikitext import _load as load_text
from qpa_hf.evaluation import perplexity

PAIR = ("LoRA r=1", "QPA chunk 96")
RATES = (1e-3, 1e-2)
N_RUNS = len(PAIR) * (len(RATES) + 2)  # of two seeds


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.sst2(tmp_path_factory.mktemp("sst2"))


def protocol(folder, arms=PAIR):
    return Protocol(arms, RATES, n_seeds=2, folder=folder)


@pytest.fixture(scope="module")
def done(task, tmp_path_factory):
    """A finished bench: its folder and what it returned."""
    folder = tmp_path_factory.mktemp("done")
    return folder, protocol(folder / "runs").run(Adapters(task), folder / "quality_sst2.json")


@pytest.fixture
def fits(monkeypatch):
    """Count trainings; `fits.stop_at` interrupts one."""

    class Fits:
        n = 0
        stop_at = None

    def counted(*args):
        Fits.n += 1
        if Fits.n == Fits.stop_at:
            raise KeyboardInterrupt
        return fit(*args)

    fit = study.fit
    monkeypatch.setattr(study, "fit", counted)
    return Fits


def test_every_arm_is_tuned_and_run_with_each_seed(done):
    found = [(row["arm"], row["purpose"], row["seed"]) for row in done[1]["runs"]]
    tuning = [(arm, "tuning", 0) for arm in PAIR for _ in RATES]
    assert sorted(found) == sorted(tuning + [(arm, "final", seed) for arm in PAIR for seed in (1, 2)])


def test_reported_rate_is_the_best_on_the_development_part(done):
    for arm in PAIR:
        rows = [row for row in done[1]["runs"] if row["arm"] == arm]
        tuned = {row["rate"]: row["development"]["cross_entropy"] for row in rows if row["purpose"] == "tuning"}
        assert {row["rate"] for row in rows if row["purpose"] == "final"} == {min(tuned, key=tuned.get)}


def test_test_part_is_not_measured_while_rates_are_chosen(done):
    assert all(("test" in row) == (row["purpose"] == "final") for row in done[1]["runs"])


def test_run_says_what_it_was_run_on(done):
    files = sorted((done[0] / "runs" / "sst2").glob("*.json"))
    assert len(files) == N_RUNS
    for path in files:
        row = json.loads(path.read_text(encoding="utf-8"))
        assert {"environment", "timestamp", "n_trainable", "seconds", "digest"} <= row.keys()
        assert {"commit", "versions", "machine"} <= row["environment"].keys()


def test_same_run_gives_the_same_numbers(task, done, tmp_path):
    again = protocol(tmp_path / "runs").run(Adapters(task), tmp_path / "quality_sst2.json")
    for one, other in zip(done[1]["runs"], again["runs"], strict=True):
        assert one["development"] == other["development"]
        assert one.get("test") == other.get("test")


def test_interrupted_bench_goes_on_where_it_stopped(task, tmp_path, fits):
    fits.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        protocol(tmp_path).run(Adapters(task), tmp_path / "quality_sst2.json")
    protocol(tmp_path).run(Adapters(task), tmp_path / "quality_sst2.json")
    assert fits.n == N_RUNS + 1


def test_merged_file_alone_is_enough_to_run_nothing_again(task, done, tmp_path, fits):
    shutil.copy(done[0] / "quality_sst2.json", tmp_path)
    again = protocol(tmp_path / "elsewhere").run(Adapters(task), tmp_path / "quality_sst2.json")
    assert fits.n == 0
    assert again == done[1]


def test_results_of_other_arms_are_kept(task, done, tmp_path):
    shutil.copy(done[0] / "quality_sst2.json", tmp_path)
    found = protocol(tmp_path / "runs", ("frozen base",)).run(Adapters(task), tmp_path / "quality_sst2.json")
    assert set(found["arms"]) == {*PAIR, "frozen base"}


def test_results_that_do_not_compare_are_refused(task, done, tmp_path):
    shutil.copy(done[0] / "quality_sst2.json", tmp_path)
    other = dataclasses.replace(protocol(tmp_path / "runs"), rates=(1e-3,))
    with pytest.raises(FileExistsError, match=r"has results with other protocol \(rates\), which do not compare"):
        other.run(Adapters(task), tmp_path / "quality_sst2.json")


def test_failed_arm_is_recorded_with_its_reason(tmp_path):
    task = tiny.wikitext(tmp_path, "head")
    found = protocol(tmp_path, ("LN tuning", "LoRA r=1")).run(Adapters(task), tmp_path / "quality_wikitext.json")
    assert "there is no normalisation" in found["arms"]["LN tuning"]["failed"]
    assert {row["arm"] for row in found["runs"]} == {"LoRA r=1"}


def test_run_whose_gradient_overflows_has_diverged(task, tmp_path, monkeypatch):
    def overflowing(parameters, max_norm):
        parameters[0].grad.fill_(math.nan)  # of a finite loss

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", overflowing)
    once = dataclasses.replace(protocol(tmp_path, ("QPA paper 256",)), rates=(1e-3,), n_seeds=1)
    found = once.run(Adapters(task), tmp_path / "quality_sst2.json")
    assert ["A trained number is not finite" in row.get("diverged", "") for row in found["runs"]] == [True, True]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_final_run_that_diverges_is_reported(seed, done, tmp_path):
    found = copy.deepcopy(done[1])
    lost = next(row for row in found["runs"] if (row["purpose"], row["seed"]) == ("final", seed))
    row = {name: lost[name] for name in runs.KEY} | {"diverged": "so it is"}
    found["runs"][found["runs"].index(lost)] = row
    assert f"{lost['arm']} diverged in 1 of 2 runs." in verdicts.sentences(summarize(found))
    report.write(found, tmp_path / "quality_sst2.json")


def test_run_that_diverges_is_never_chosen():
    rows = [
        {"rate": 0.1, "development": {"cross_entropy": None}},
        {"rate": 0.3, "development": {"cross_entropy": 2.0}},
    ]
    assert choose([rows[0] | {"diverged": "so it is"}, rows[1]], CROSS_ENTROPY) == 0.3


@pytest.mark.parametrize(
    ("losses", "next_one"),
    [
        ({0.01: 2.0, 0.03: 1.5, 0.1: 1.0}, (0.3,)),
        ({0.01: 2.0, 0.1: 1.5, 0.3: 1.0}, (1.0,)),
        ({0.001: 1.0, 0.003: 1.5, 0.01: 2.0}, (0.0003,)),
        ({0.01: 2.0, 0.03: 1.0, 0.1: 1.5}, ()),
        ({0.01: 2.0}, ()),
    ],
)
def test_rates_go_on_beyond_an_end_that_is_best(losses, next_one):
    rows = [{"rate": rate, "development": {"cross_entropy": loss}} for rate, loss in losses.items()]
    assert beyond(rows, CROSS_ENTROPY) == next_one


def test_arm_that_is_best_at_an_end_tries_other_rates(task, tmp_path):
    low = dataclasses.replace(protocol(tmp_path, PAIR[:1]), rates=(1e-7, 3e-7), is_open=True, n_seeds=1)
    found = low.run(Adapters(task), tmp_path / "quality_sst2.json")["runs"]
    assert len({row["rate"] for row in found if row["purpose"] == "tuning"}) > 2


def test_report_has_table_sentences_and_picture(done):
    path = done[0] / "quality_sst2.json"
    written = report.write(results.read(path), path)
    assert {one.suffix for one in written} == {".md", ".png"}
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert all(f"{arm}" in text for arm in PAIR)
    assert "over 2 seeds" in text


def test_report_says_how_much_is_the_choice_of_the_rows(task, tmp_path):
    arms = ("gradient, direct 600", "QPA gradient r=20, bits matched", "QPA gradient r=20")
    once = dataclasses.replace(protocol(tmp_path, arms), rates=(1e-2,), tuning_seeds=())
    found = once.run(Adapters(task), tmp_path / "quality_sst2.json")
    lines = report.of_rows(summarize(found), found)
    assert [line.partition(":")[0] for line in lines] == [f"{arms[2]} minus {arms[1]}"]
    before = [row for row in found["runs"] if row["arm"] != arms[2]]
    assert report.of_rows(summarize(found | {"runs": before}), found | {"runs": before}) == []


def test_batches_of_a_seed_are_the_same_for_all_and_have_each_sentence_once(task):
    first, again, other = ([batch["hidden_states"] for batch in task.batches(seed)] for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first) == task.n_steps()
    assert sum(len(batch) for batch in first) == sum(len(batch) for batch in other) == task.n_train
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_top_layers_on_kept_states_are_the_whole_encoder(task):
    rows = _load(task).test
    bert = BertModel.from_pretrained(task.encoder).eval()
    text = (task.data / "dev.tsv").read_text(encoding="utf-8").splitlines()[1].split("\t")[0]
    batch = AutoTokenizer.from_pretrained(task.encoder)([text], return_tensors="pt")
    with torch.no_grad():
        whole = bert(**batch).last_hidden_state.mean(1)
        kept = {key: value for key, value in rows.batch(torch.tensor([0])).items() if key != "labels"}
        ours = task.base().pooled(**kept)
    torch.testing.assert_close(ours, whole, atol=2e-3, rtol=0)  # kept in float16


def test_losses_of_rows_have_the_metric_as_their_mean(task, tmp_path):
    for one in (task, tiny.wikitext(tmp_path, "all"), tiny.mnist(tmp_path)):
        measured = one.evaluate(one.base(), "test")
        assert measured.losses.dim() == 1
        assert len(measured.losses) > 1
        assert measured.losses.mean().item() == pytest.approx(measured.metrics["cross_entropy"], rel=1e-5)


def test_losses_of_blocks_are_those_of_the_standard_perplexity(tmp_path):
    one = tiny.wikitext(tmp_path, "all")
    blocks = load_text(one).test
    assert one.evaluate(one.base(), "test").metrics["perplexity"] == pytest.approx(perplexity(one.base(), blocks))


def test_seeds_of_reported_runs_begin_where_they_are_told_to(task, tmp_path):
    once = dataclasses.replace(protocol(tmp_path, PAIR[:1]), rates=(1e-3,), first_seed=7, n_seeds=2)
    found = once.run(Adapters(task), tmp_path / "quality_sst2.json")
    assert [row["seed"] for row in found["runs"] if row["purpose"] == "final"] == [7, 8]


def test_images_of_the_parts_are_different_ones(tmp_path):
    loaded = load_images(tiny.mnist(tmp_path))
    pixels = torch.cat([part.pixels for part in (loaded.train, loaded.development, loaded.test)])
    assert len(pixels.unique(dim=0)) == len(pixels) == 80


FAMILIES = ("QPA, gradient", "QPA, paper", "direct", "control")
OF_EACH_KIND = [
    next(name for name, arm in ARMS.items() if arm.family == family and name.startswith(("QPA", "gradient")))
    for family in FAMILIES
]


@pytest.mark.parametrize("arm", [*OF_EACH_KIND, *CORES_OF_OTHERS, "IA3", "MiCA r=1"])
def test_arms_train_on_every_kind_of_task(task, tmp_path, arm):
    for one in (task, tiny.wikitext(tmp_path, "all"), tiny.mnist(tmp_path)):
        row = runs.execute(runs.Job(Adapters(one), arm, "final", 1e-3, 1, tmp_path))
        assert "failed" not in row
        assert row["n_trainable"] > 0


def test_named_arms_exist():
    assert {BASE, LORA, *QUICK, *(arm.control_of for arm in ARMS.values() if arm.control_of)} <= set(ARMS)


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_has_a_configuration_for_the_small_encoder(name, task):
    try:
        ARMS[name].make(task.targets, 0)
    except ImportError as error:
        pytest.skip(str(error))  # a method of PEFT's that needs a library of the extra `quality`


def test_unknown_arm_is_refused_before_any_work():
    with pytest.raises(ValueError, match="Did you mean `LoRA r=1`"):
        bench(task=["sst2"], arm=["lora r1"])
