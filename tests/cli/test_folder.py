"""The folder of a run: what it holds is kept, unless a new run replaces it."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
import torch

from qpa_hf.files import LOCK_NAME
from qpa_hf.training import folder
from qpa_hf.training.data import Examples
from qpa_hf.training.settings import read_settings

SETTINGS = read_settings(model="any", data={"train": ["a.txt"]})
DATA = Examples(torch.zeros(2, 4), torch.zeros(1, 4), None, "validation files")
OTHER = dataclasses.replace(SETTINGS, model="other")


@pytest.fixture
def killed():
    """Begin a run anew, and do nothing at its end; only the lock is given back, as the system would."""
    kept = []  # what is collected would end in order

    def begin(place, settings):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folder, "locked", contextlib.nullcontext)
            kept.append(folder.started_run(place, settings, DATA, is_fresh=True))
            kept[-1].__enter__()

    return begin


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
    assert (result.code, "on other examples" in result.err) == (2, True)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_either_part_of_the_text_tells_runs_apart(part, tmp_path):
    with folder.started_run(tmp_path, SETTINGS, DATA):
        (tmp_path / "native").touch()
    other = dataclasses.replace(DATA, **{part: getattr(DATA, part) + 1})
    with (
        pytest.raises(FileExistsError, match="holds a run on other examples"),
        folder.started_run(tmp_path, SETTINGS, other),
    ):
        pass


@pytest.mark.parametrize(("name", "is_same"), [("max_jobs", True), ("max_shots", True), ("device", False)])
def test_a_run_goes_on_with_another_limit_of_its_device(name, is_same, tmp_path):
    def limited(value):
        return dataclasses.replace(SETTINGS, adapter={**SETTINGS.adapter, name: value})

    with folder.started_run(tmp_path, limited(10), DATA):
        (tmp_path / "native").touch()
    refused = contextlib.nullcontext() if is_same else pytest.raises(FileExistsError, match="with other settings")
    with refused, folder.started_run(tmp_path, limited(20), DATA):
        pass


@pytest.mark.parametrize("name", ["loss.png", "checkpoints/checkpoint-4/trainer_state.json"])
def test_a_directory_where_a_run_writes_a_file_is_refused_at_first(name, tmp_path):
    with folder.started_run(tmp_path, SETTINGS, DATA):
        (tmp_path / "native").touch()
    (tmp_path / name).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match=f"{name} is a directory"), folder.started_run(tmp_path, SETTINGS, DATA):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_settings_refused_late_do_not_occupy_the_folder(qpa, tiny, tmp_path):
    assert qpa("train", "--output", tmp_path, *tiny, "--set", "data.block_length=300").code == 2
    assert qpa("train", "--output", tmp_path, *tiny).code == 0


def test_folder_of_another_run_is_kept(qpa, tiny, tmp_path, weights):
    qpa("train", "--output", tmp_path, *tiny)
    before = weights(tmp_path)
    result = qpa("train", "--output", tmp_path, *tiny, "--set", "adapter.r=5")
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
    assert (refused.code, "notes.txt, which is not part of a run" in refused.err) == (2, True)
    assert (tmp_path / "native").is_dir()
    (tmp_path / "notes.txt").unlink()
    late = ("--set", "adapter.target_modules=[typo]")
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny, *late).code == 2
    assert all(torch.equal(before[name], weights(tmp_path)[name]) for name in before)
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny, "--set", "adapter.r=7").code == 0
    assert not {path.name for path in tmp_path.iterdir()} & {folder.EARLIER, folder.DISCARDED}
    assert {7} == {min(tensor.shape) for tensor in weights(tmp_path).values()}


def test_fresh_start_interrupted_between_two_moves_keeps_the_earlier_run(tmp_path, monkeypatch):
    before, moved, rename = _earlier_run(tmp_path), [], Path.rename

    def interrupted(path, target):
        if moved:
            monkeypatch.undo()
            raise KeyboardInterrupt
        moved.append(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), folder.started_run(tmp_path, SETTINGS, DATA, is_fresh=True):
        pass
    assert _texts(tmp_path) == before


@pytest.mark.parametrize("cut_off_at", [0, 1, 2])
def test_killed_fresh_start_gives_the_earlier_run_back(cut_off_at, tmp_path, killed):
    before = _earlier_run(tmp_path)
    killed(tmp_path, OTHER)
    (tmp_path / "checkpoints").mkdir()
    for name in ("run.yaml", "native")[:cut_off_at]:  # when it was being put back
        (tmp_path / folder.EARLIER / name).replace(tmp_path / name)
    with folder.started_run(tmp_path, SETTINGS, DATA):
        assert _texts(tmp_path) == before


@pytest.mark.parametrize("is_fresh", [False, True], ids=["other settings", "files of others"])
def test_a_refused_command_changes_nothing(is_fresh, tmp_path, killed):
    _earlier_run(tmp_path)
    killed(tmp_path, OTHER)
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/weights", "notes.txt"):
        (tmp_path / name).write_text("new", encoding="utf-8")
    before = _texts(tmp_path)
    with pytest.raises(FileExistsError), folder.started_run(tmp_path, OTHER, DATA, is_fresh):
        pass
    assert _texts(tmp_path) == before


def test_a_folder_that_a_refused_command_made_is_gone(tmp_path):
    def refused():
        with folder.started_run(tmp_path / "a" / "b", SETTINGS, DATA):
            (tmp_path / "a" / "b" / "checkpoints").mkdir()
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        refused()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fresh", [(), ("--fresh",)], ids=["to go on", "to start anew"])
def test_a_folder_in_use_is_refused_and_left_alone(fresh, command, qpa, tiny, tmp_path):
    with folder.started_run(tmp_path, SETTINGS, DATA):
        (tmp_path / folder.EARLIER).mkdir()
        (tmp_path / folder.EARLIER / "run.yaml").write_text("of the run that is being replaced", encoding="utf-8")
        before = _texts(tmp_path)
        result = qpa(*command, "--output", tmp_path, *tiny, *fresh)
        assert (result.code, result.err.count("Another process is at work")) == (2, 1)
        assert _texts(tmp_path) == before


@pytest.mark.parametrize(
    "name", [".run.yaml.{}.partial", "adapter/.README.md.{}.partial", ".adapter.{}.partial/weights"]
)
@pytest.mark.parametrize("is_fresh", [False, True])
def test_what_a_killed_process_left_is_no_obstacle(is_fresh, name, tmp_path, gone):
    _earlier_run(tmp_path)
    elsewhere = "00000000-1-1-01234567"  # on another computer, not long ago: it may be alive
    for writer in (gone, elsewhere):
        left = tmp_path / name.format(writer)
        left.parent.mkdir(exist_ok=True)
        left.touch()
    with folder.started_run(tmp_path, SETTINGS, DATA, is_fresh):
        found = {writer for writer in (gone, elsewhere) if list(tmp_path.rglob(f"*{writer}*"))}
        assert found == {elsewhere}


def test_a_kill_while_the_settings_are_first_written_does_not_lock_the_folder(tmp_path, gone):
    (tmp_path / f".run.yaml.{gone}.partial").write_text("mod", encoding="utf-8")
    with folder.started_run(tmp_path, SETTINGS, DATA):
        assert [path.name for path in tmp_path.iterdir() if path.name != LOCK_NAME] == ["run.yaml"]


def _earlier_run(place):
    """Leave a run's files, and return their texts."""
    with folder.started_run(place, SETTINGS, DATA):
        (place / "native").mkdir()
        (place / "native" / "weights").write_text("old", encoding="utf-8")
    return _texts(place)


def _texts(place):
    files = (path for path in place.rglob("*") if path.is_file() and path.name != LOCK_NAME)
    return {path.relative_to(place): path.read_text(encoding="utf-8") for path in files}
