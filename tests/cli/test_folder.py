"""The folder of a run: what it holds is kept, unless a new run replaces it."""

import dataclasses
from pathlib import Path

import pytest
import torch

from qpa_hf.training import folder
from qpa_hf.training.data import TextData
from qpa_hf.training.settings import read_settings


def test_output_below_a_file_is_refused(qpa, tiny, tmp_path):
    (tmp_path / "file").touch()
    result = qpa("train", "--output", tmp_path / "file" / "run", *tiny)
    assert (result.code, "is a file. Pass a folder" in result.err) == (2, True)


def test_text_that_changed_under_its_name_is_another_run(command, qpa, tiny, book, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(book.read_text(encoding="utf-8"), encoding="utf-8")
    options = [*(text if option == book else option for option in tiny), "--output", tmp_path / "run"]
    assert qpa(*command, *options).code == 0
    text.write_text(text.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    result = qpa(*command, *options)
    assert (result.code, "on another text" in result.err) == (2, True)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_either_part_of_the_text_tells_runs_apart(part, tmp_path):
    settings = read_settings(model="any", data={"train": ["a.txt"]})
    data = TextData(torch.zeros(2, 4), torch.zeros(1, 4), None, "validation files")
    folder.claim(tmp_path, settings, data)
    (tmp_path / "native").touch()
    other = dataclasses.replace(data, **{part: getattr(data, part) + 1})
    with pytest.raises(FileExistsError, match="holds a run on another text"):
        folder.claim(tmp_path, settings, other)


def test_settings_refused_late_do_not_occupy_the_folder(qpa, tiny, tmp_path):
    assert qpa("train", "--output", tmp_path, *tiny, "--set", "data.block_length=300").code == 2
    assert qpa("train", "--output", tmp_path, *tiny).code == 0


def test_folder_of_another_run_is_kept(qpa, tiny, tmp_path, weights):
    qpa("train", "--output", tmp_path, *tiny)
    before = weights(tmp_path)
    result = qpa("train", "--output", tmp_path, *tiny, "--set", "adapter.r=4")
    assert result.code == 2
    assert "other settings" in result.err
    assert all(torch.equal(before[name], weights(tmp_path)[name]) for name in before)


def test_folder_that_is_no_run_is_never_removed(qpa, tiny, tmp_path):
    for name in ("thesis.tex", "earlier/draft.tex", "discarded/chapter.tex"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("years of work", encoding="utf-8")
    before = _texts(tmp_path)
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny).code == 2
    assert _texts(tmp_path) == before


def test_a_fresh_start_removes_a_run_only_once_the_new_one_is_found_good(qpa, tiny, tmp_path, weights):
    qpa("train", "--output", tmp_path, *tiny)
    before = weights(tmp_path)
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny, "--train", tmp_path / "typo.txt").code == 2
    assert all(torch.equal(before[name], weights(tmp_path)[name]) for name in before)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    refused = qpa("train", "--output", tmp_path, "--fresh", *tiny)
    assert (refused.code, "notes.txt, which is no part of a run" in refused.err) == (2, True)
    assert (tmp_path / "native").is_dir()
    (tmp_path / "notes.txt").unlink()
    late = ("--set", "adapter.target_modules=[typo]")
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny, *late).code == 2
    assert all(torch.equal(before[name], weights(tmp_path)[name]) for name in before)
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny, "--set", "adapter.r=4").code == 0
    assert not {path.name for path in tmp_path.iterdir()} & {folder.EARLIER, folder.DISCARDED}
    assert {4} == {min(tensor.shape) for tensor in weights(tmp_path).values()}


def test_fresh_start_interrupted_between_two_moves_keeps_the_earlier_run(tmp_path, monkeypatch):
    before, moved, rename = _earlier_run(tmp_path), [], Path.rename

    def interrupted(path, target):
        if moved:
            monkeypatch.undo()
            raise KeyboardInterrupt
        moved.append(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), folder.begun(tmp_path, is_fresh=True):
        pass
    assert _texts(tmp_path) == before


@pytest.mark.parametrize("cut_off_at", [0, 1, 2])
def test_killed_fresh_start_gives_the_earlier_run_back(cut_off_at, tmp_path):
    before = _earlier_run(tmp_path)
    start = folder.begun(tmp_path, is_fresh=True)
    start.__enter__()  # and killed, so that nothing is done at the end
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.yaml").write_text("new", encoding="utf-8")
    for name in ("run.yaml", "native")[:cut_off_at]:  # when it was being put back
        (tmp_path / folder.EARLIER / name).replace(tmp_path / name)
    with folder.begun(tmp_path, is_fresh=False):
        assert _texts(tmp_path) == before


def _earlier_run(place):
    """Leave a run's files, and return their texts."""
    (place / "run.yaml").write_text("old", encoding="utf-8")
    (place / "native").mkdir()
    (place / "native" / "weights").write_text("old", encoding="utf-8")
    return _texts(place)


def _texts(place):
    return {path.relative_to(place): path.read_text(encoding="utf-8") for path in place.rglob("*") if path.is_file()}
