"""A run's folder: which run it holds, and what becomes of an earlier one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qpa_hf.checkpoint import write_text
from qpa_hf.training.data import TextData
from qpa_hf.training.settings import RunSettings

SETTINGS_NAME = "run.yaml"
# A run that a new one is about to replace, and has replaced; under names that nobody gives to a folder of their own.
EARLIER, DISCARDED = ".qpa_earlier", ".qpa_discarded"
PICTURES = {"loss.png", "probabilities.png", "singular_values.png", "comparison.png"}
# What a run or a comparison writes into its folder.
OF_A_RUN = {SETTINGS_NAME, "checkpoints", "native", "adapter", "runs", "scratch", "comparison.json"} | PICTURES


def claim(folder: Path, settings: RunSettings, data: TextData) -> None:
    """Write the settings into the run's folder, or see that they and the text are those of the run to be resumed.

    Settings of a run that never wrote anything else, because they were refused later on, are written over.

    Raises:
        FileExistsError: if the folder holds a run with other settings or on another text, or other files.
        NotADirectoryError: if it is a file, or lies below one.
    """
    for place in (folder, *folder.parents):
        if place.is_file():
            raise NotADirectoryError(f"{place} is a file. Pass a folder to write the run to.")
    text, path = settings.to_yaml(), folder / SETTINGS_NAME
    tokens = f"# SHA-256 of the tokens: {_digest(data)}\n"
    others = [p for p in folder.rglob("*") if p.is_file() and p != path and folder / EARLIER not in p.parents]
    if path.is_file() and others:
        known = path.read_text(encoding="utf-8")
        if known != tokens + text:
            what = "with other settings"
            if known.endswith(text):
                what = "on another text (its files have changed, or an older version wrote it)"
            raise FileExistsError(
                f"{folder} holds a run {what}: see {path}. Choose another output folder, or pass --fresh to start "
                "anew in this one."
            )
        return
    if others:
        raise FileExistsError(f"{folder} is not empty and holds no run. Choose another output folder.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, tokens + text)


def _digest(data: TextData) -> str:
    found = hashlib.sha256()
    for blocks in (data.train, data.validation):
        found.update(str(tuple(blocks.shape)).encode())
        found.update(blocks.contiguous().numpy().data)
    return found.hexdigest()


@contextmanager
def begun(folder: Path, is_fresh: bool) -> Iterator[None]:
    """Begin a run in a folder; with `is_fresh` it replaces an earlier one.

    That one is kept until `discard` says that the new run has something to show, and comes back if it fails before.

    Raises:
        FileExistsError: if the folder holds something else, too; nothing is moved then.
    """
    _put_back(folder)  # of a process that was killed
    try:
        if is_fresh:
            _set_aside(folder)
        yield
    except BaseException:
        _put_back(folder)
        raise
    discard(folder)


def discard(folder: Path) -> None:
    """Remove the run that a new one replaces."""
    if (folder / EARLIER).is_dir():
        (folder / EARLIER).rename(folder / DISCARDED)  # in one step: half of a run would be put back
        shutil.rmtree(folder / DISCARDED)


def _set_aside(folder: Path) -> None:
    found = list(folder.iterdir()) if folder.is_dir() else []
    if found and not (folder / SETTINGS_NAME).is_file():
        raise FileExistsError(f"{folder} holds no run, so it is not removed. Choose another output folder.")
    if others := sorted(path.name for path in found if path.name not in OF_A_RUN):
        raise FileExistsError(
            f"{folder} holds {others[0]}, which is no part of a run, so nothing is removed. Move it away, or choose "
            "another output folder."
        )
    if found:
        (folder / EARLIER).mkdir()
        for path in sorted(found, key=lambda path: path.name == SETTINGS_NAME):  # last: then the run is whole
            path.rename(folder / EARLIER / path.name)


def _put_back(folder: Path) -> None:
    shutil.rmtree(folder / DISCARDED, ignore_errors=True)
    aside = folder / EARLIER
    if (aside / SETTINGS_NAME).is_file():
        for path in folder.iterdir():
            if path.is_dir() and path.name in OF_A_RUN:
                shutil.rmtree(path)
            elif path.name in OF_A_RUN:
                path.unlink()
        (aside / SETTINGS_NAME).rename(folder / SETTINGS_NAME)  # first: nothing is removed if this is cut off
    if aside.is_dir():
        for path in aside.iterdir():
            path.rename(folder / path.name)
        aside.rmdir()
