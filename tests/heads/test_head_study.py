"""The heads' study in miniature: its splits, its resumption, its report."""

import pytest
import torch

from benchmarks.harness.protocol import Protocol
from benchmarks.heads import report, study
from benchmarks.heads.arms import ARMS, FROZEN, LOGISTIC, Classifier, n_trained
from benchmarks.heads.embeddings import Sentences
from benchmarks.heads.study import Budget, Data, Heads, Part

PAIR = (FROZEN, LOGISTIC)


def sentences(n_rows):
    x = torch.nn.functional.normalize(torch.randn(n_rows, 6), dim=1)
    return Sentences(x, (x[:, 0] > 0).long())


@pytest.fixture
def small(monkeypatch):
    """Shrink the study to two arms and two parts; return its data."""
    budget = Budget(2, 16)
    parts = {
        "4 per class": Part(4, True, budget),
        "40": Part(40, False, budget),
        "all": Part(None, False, budget, "40"),
    }
    monkeypatch.setattr(study, "PARTS", parts)
    monkeypatch.setattr(report, "PARTS", parts)
    monkeypatch.setattr(study, "N_DEVELOPMENT", 20)
    for module in (study, report):
        monkeypatch.setattr(module, "ARMS", {name: ARMS[name] for name in PAIR})
        monkeypatch.setattr(module, "SCREEN", "40")
    torch.manual_seed(0)
    return Data.split(sentences(100), sentences(30))


def run(data, folder, n_seeds):
    """Run the study in a folder; return its file's content."""
    heads = Heads(data)
    return Protocol(tuple(heads.arms), (), n_seeds, folder / "runs").run(heads, folder / "heads.json")


def test_parts_of_the_data_share_no_sentence(small):
    together = torch.cat((small.pool.embeddings, small.development.embeddings))
    assert len(together) == len(together.unique(dim=0)) == 100


def test_a_few_shot_part_has_as_many_of_each_class(small):
    assert small.rows(study.PARTS["4 per class"], 1).labels.bincount().tolist() == [4, 4]


def test_seeds_draw_other_training_sentences(small):
    first, second = (small.rows(study.PARTS["40"], seed).embeddings for seed in (1, 2))
    assert not torch.equal(first, second)


def test_hyperparameters_are_chosen_without_the_test_sentences(small, tmp_path):
    found = run(small, tmp_path, 2)
    assert all(("test" in row) == (row["purpose"] == "final") for row in found["runs"])
    tuned = {found["arms"][row["arm"]]["part"] for row in found["runs"] if row["purpose"] == "tuning"}
    assert tuned == {"4 per class", "40"}


def test_an_interrupted_study_repeats_no_run(small, tmp_path, monkeypatch):
    first = run(small, tmp_path, 2)
    monkeypatch.setattr(Heads, "run", None)
    assert run(small, tmp_path, 2) == first


def test_the_report_pairs_differences_by_seed(small, tmp_path):
    content = run(small, tmp_path, 3)
    written = report.write(tmp_path / "heads.json")
    found = report.by_part(content)["40"].results
    assert found[0].minus(found[1]).mean == pytest.approx(found[0].mean - found[1].mean)
    assert all(file.stat().st_size > 0 for file in written)


def test_one_run_of_an_arm_without_chance_stands_beside_all_seeds_of_the_others(small, tmp_path):
    found = report.by_part(run(small, tmp_path, 3))["all"].by_name()
    assert found[FROZEN].losses.keys() == found[LOGISTIC].losses.keys()
    assert len(set(found[LOGISTIC].losses.values())) == 1


def test_trained_numbers_are_counted_for_all_kinds_of_arms(small):
    x, y = small.pool.embeddings.numpy(), small.pool.labels.numpy()

    def count(arm: Classifier):
        return n_trained(arm.make(arm.grid[0], 0, Budget(1, 50), {**arm.settings}).fit(x, y))

    assert count(ARMS[FROZEN]) == 4
    assert count(ARMS[LOGISTIC]) == 7
    assert count(ARMS["RBF SVM"]) is None
