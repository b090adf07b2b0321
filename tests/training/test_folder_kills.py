"""A run's folder whose process is killed before any one of its changes to it; afterwards the next command works."""

import dataclasses
import os
import signal
import sys

import pytest
import torch

from qpa_hf.checkpoint import write_text
from qpa_hf.files import LOCK_NAME, is_temporary
from qpa_hf.training import folder
from qpa_hf.training.data import Examples
from qpa_hf.training.settings import read_settings

OLD = read_settings(model="old", data={"train": ["a.txt"]})
NEW = dataclasses.replace(OLD, model="new")
DATA = Examples(torch.zeros(2, 4), torch.zeros(1, 4), None, "validation files")
CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def work(place, settings, is_fresh):
    """Do what a run does: begin, take a step, write."""
    with folder.started_run(place, settings, DATA, is_fresh):
        (place / "native").mkdir(exist_ok=True)
        write_text(place / "native" / "weights", settings.model)
        folder.discard(place)
        write_text(place / "native" / "record", settings.model)


def is_killed(place, settings, is_fresh, n_changes):
    """Work in a process that is killed before one of its changes, and return whether it came so far."""

    def kill(event, args):
        nonlocal n_changes
        if event in CHANGES or event == "open" and isinstance(args[2], int) and args[2] & WRITING:
            n_changes -= 1
            if n_changes < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            sys.addaudithook(kill)
            work(place, settings, is_fresh)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def left(place):
    return {path.name for path in place.rglob("*") if is_temporary(path.name) and path.name != LOCK_NAME} | {
        path.name for path in place.iterdir() if path.name in (folder.EARLIER, folder.DISCARDED)
    }


def texts(place):
    return {path.name: path.read_text(encoding="utf-8") for path in (place / "native").iterdir()}


def test_a_first_run_that_is_killed_goes_on(tmp_path):
    n_changes = 0
    while is_killed(tmp_path / str(n_changes), OLD, False, n_changes):
        work(tmp_path / str(n_changes), OLD, is_fresh=False)
        assert (left(tmp_path / str(n_changes)), len(texts(tmp_path / str(n_changes)))) == (set(), 2)
        n_changes += 1
    assert n_changes > 10


def test_a_fresh_run_that_is_killed_leaves_the_old_run_or_its_own(tmp_path):
    n_changes, found = 0, []
    while True:
        place = tmp_path / str(n_changes)
        work(place, OLD, is_fresh=False)
        if not is_killed(place, NEW, True, n_changes):
            break
        try:
            with folder.started_run(place, OLD, DATA):
                assert texts(place) == {"weights": "old", "record": "old"}
            found.append("old")
        except FileExistsError:
            work(place, NEW, is_fresh=False)
            assert texts(place) == {"weights": "new", "record": "new"}
            found.append("new")
        assert left(place) == set()
        n_changes += 1
    assert found == sorted(found, reverse=True)  # from one change on it is the new one
    assert set(found) == {"old", "new"}
