"""The text of a run: files, datasets, and what cannot be read."""

import json
import sys

import pytest

from qpa_hf.demo.arms import BASE
from qpa_hf.training import read_data, read_settings, run


def test_dataset_folder_is_read_by_its_splits(qpa, book, tmp_path):
    lines = book.read_text(encoding="utf-8")
    for split, text in {"train": lines[:8000], "validation": lines[8000:]}.items():
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{split}.txt").write_text(text, encoding="utf-8")
    settings = read_settings(model=str(BASE), data={"dataset": str(tmp_path / "texts"), "block_length": 32})
    data = read_data(settings)
    assert (data.validation_split, data.name) == ("validation", None)  # a path is not for a card
    assert len(data.train) > len(data.validation) > 0


@pytest.mark.parametrize(("options", "expected"), [((), None), (("--set", "data.dataset_config=mine"), "mine")])
def test_configuration_of_a_recipes_dataset_is_not_anothers(qpa, options, expected, tmp_path, monkeypatch):
    found = []

    def stop(settings, *args, **kwargs):
        found.append(settings.data.dataset_config)
        sys.exit()

    monkeypatch.setattr(run, "train", stop)
    qpa("train", "--output", tmp_path, "--recipe", "paper-gpt2", "--dataset", tmp_path, *options)
    assert found == [expected]


DATASETS = {
    "column of numbers": ({"text_column": "n"}, "holds int, not text"),
    "validation files beside a dataset": ({"validation": "other.txt"}, "Leave one of them out"),
}


@pytest.mark.parametrize("case", DATASETS)
def test_dataset_that_cannot_be_read_is_explained(case, tmp_path):
    settings, message = DATASETS[case]
    _write_rows(tmp_path)

    def read():
        found = read_settings(model=str(BASE), data={"dataset": str(tmp_path), "block_length": 32, **settings})
        return read_data(found)

    with pytest.raises(ValueError, match=message):
        read()


@pytest.mark.parametrize(
    ("rows", "reason"), [('{"text": "a"}\n{"text": b', "JSON parse error"), ("", "a file is empty")]
)
def test_damaged_dataset_is_named(rows, reason, tmp_path):
    _write_rows(tmp_path)
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    settings = read_settings(model=str(BASE), data={"dataset": str(tmp_path)})
    with pytest.raises(ValueError, match=rf"The split `train` of the dataset .* cannot be read \({reason}"):
        read_data(settings)


def test_rows_without_text_are_left_out(tmp_path):
    _write_rows(tmp_path)
    settings = read_settings(model=str(BASE), data={"dataset": str(tmp_path), "block_length": 32})
    assert len(read_data(settings).train) > 0


def _write_rows(folder):
    for split in ("train", "validation"):
        rows = [{"text": f"some words to {split} with " * 50, "n": 3}, {"text": None, "n": 3}]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
