"""Replacing in one step and having a folder to oneself: whatever the system can, whoever is killed when."""

import ctypes
import errno
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from safetensors import SafetensorError

from qpa_hf import files
from qpa_hf.files import DiskFullError, is_temporary, locked, naming_full_disk, replacing, sweep, unfinished

# Loads the module alone: importing the package takes seconds.
HOLDER = f"""
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("files", {files.__file__!r})
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
folder = pathlib.Path(sys.argv[1])
with files.locked(folder), files.replacing(folder / "adapter") as partial:
    partial.mkdir()
    print("ready", flush=True)
    sys.stdin.read()
"""


def refuses(*args, **kwargs):
    raise TypeError("bad argument type for built-in operation")


def denied(*args):
    return -1


class Mac:
    """A C library that trades places under macOS's name."""

    def renamex_np(self, first, second, flags):
        assert flags == 2
        aside = first + b".aside"
        os.rename(first, aside)
        os.rename(second, first)
        os.rename(aside, second)
        return 0


SYSTEMS = {
    "this one": ctypes.CDLL,
    "Windows": refuses,
    "without an exchange": lambda *args, **kwargs: object(),
    "a file system without an exchange": lambda *args, **kwargs: types.SimpleNamespace(renameat2=denied),
    "macOS": lambda *args, **kwargs: Mac(),
    "macOS, a file system without an exchange": lambda *args, **kwargs: types.SimpleNamespace(renamex_np=denied),
}


@pytest.fixture(params=SYSTEMS)
def system(request, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", SYSTEMS[request.param])
    return request.param


def a_folder(place, text):
    place.mkdir()
    (place / "file").write_text(text)


def test_a_folder_is_replaced_on_every_system(system, tmp_path):
    a_folder(tmp_path / "a", "old")
    with replacing(tmp_path / "a") as partial:
        a_folder(partial, "new")
        (partial / "another").touch()
    assert (tmp_path / "a" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_an_interruption_between_two_renames_is_undone(tmp_path, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", SYSTEMS["Windows"])
    rename = Path.rename

    def interrupted(path, target):
        if path.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    a_folder(tmp_path / "a", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as partial:
        a_folder(partial, "new")
    assert (tmp_path / "a" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("is_back", [True, False], ids=["a kill between two renames", "a kill after both"])
def test_an_old_folder_is_put_back_if_nothing_took_its_place(is_back, tmp_path, gone):
    a_folder(tmp_path / f".a.{gone}.old", "old")
    if not is_back:
        a_folder(tmp_path / "a", "new")
    sweep(tmp_path)
    assert (tmp_path / "a" / "file").read_text() == ("old" if is_back else "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_an_error_leaves_the_old_file_and_nothing_beside(error, tmp_path):
    def interrupted():
        with replacing(tmp_path / "a") as partial:
            partial.write_text("new")
            raise error

    (tmp_path / "a").write_text("old")
    with pytest.raises(error):
        interrupted()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        first.write_text("first")
        second.write_text("second")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "first")]


def written_by(computer=None, process=None, start=None):
    """Return the name of what a process writes, this one unless another is told."""
    with unfinished(Path("a")) as path:
        found = files.UNFINISHED.fullmatch(path.name)
    parts = (computer or found["computer"], process or found["process"], start or found["start"])
    return f".a.{'-'.join(map(str, parts))}-01234567.partial"


@pytest.mark.parametrize(
    ("writer", "age", "is_kept"),
    [
        ({}, 0, True),
        ({"start": 1}, 0, False),
        ({"computer": "00000000"}, 0, True),
        ({"computer": "00000000"}, 2 * files.ABANDONED, False),
    ],
    ids=["alive", "another process with its number", "another computer's", "another computer's, a day ago"],
)
def test_only_what_nobody_writes_any_more_is_swept(writer, age, is_kept, tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    for folder in (tmp_path, tmp_path / "below"):
        (folder / written_by(**writer)).touch()
    now = files.time.time()
    monkeypatch.setattr(files.time, "time", lambda: now + age)
    sweep(tmp_path, is_deep=True)
    assert [path.parent.name for path in tmp_path.rglob(".a*")] == ([tmp_path.name, "below"] if is_kept else [])


@pytest.mark.parametrize("name", [".a.partial", "notes.partial", ".vimrc.old", ".a.b.old", ".a.1-2-3-4.partial", "a"])
def test_files_of_others_are_neither_ignored_nor_swept(name, tmp_path):
    (tmp_path / name).touch()
    sweep(tmp_path)
    assert (is_temporary(name), (tmp_path / name).exists()) == (False, True)


def test_a_killed_process_keeps_neither_its_lock_nor_its_files(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            holder.stdout.readline()
            sweep(tmp_path)
            assert {is_temporary(path.name) for path in tmp_path.iterdir()} == {True}
            assert len(list(tmp_path.iterdir())) == 2
            with pytest.raises(BlockingIOError, match="Another process is at work"), locked(tmp_path):
                pass
        finally:
            holder.kill()
    with locked(tmp_path):
        sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_made_for_the_lock_alone_does_not_stay(tmp_path):
    with locked(tmp_path / "a" / "b"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(PermissionError, match="cannot be written .*Choose another output folder"), locked(tmp_path):
        pass


QUOTED = os.strerror(errno.ENOSPC)
FULL = {
    "the system": OSError(errno.ENOSPC, QUOTED),
    "a quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "shutil": shutil.Error([("from", "to", f"[Errno 28] {QUOTED}: 'to'")]),
    "safetensors": SafetensorError(f"Error while serializing: I/O error: {QUOTED} (os error 28)"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 16576 vs 16464"),
}


def fail(error):
    raise error


@pytest.fixture
def no_room(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: types.SimpleNamespace(free=0))


@pytest.mark.parametrize("library", FULL)
def test_a_full_disk_is_one_sentence_whoever_meets_it(library, no_room, tmp_path):
    target = tmp_path / "file"
    target.write_text("old", encoding="utf-8")
    said = f"^The disk is full: not all could be written in {re.escape(str(tmp_path))}. Make room"
    with pytest.raises(DiskFullError, match=said) as full, replacing(target):
        fail(FULL[library])
    assert full.value.errno == errno.ENOSPC
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_is_found_below_another_sentence(tmp_path):
    error = ValueError("Cannot write.")
    error.__cause__ = FULL["the system"]
    with pytest.raises(DiskFullError), naming_full_disk(tmp_path):
        fail(error)


@pytest.mark.parametrize("error", [FULL["torch"], ValueError("no"), OSError(errno.EACCES, "Permission denied")])
def test_other_errors_are_left_as_they_are(error, tmp_path):
    with pytest.raises(type(error)) as found, naming_full_disk(tmp_path):
        fail(error)
    assert found.value is error
