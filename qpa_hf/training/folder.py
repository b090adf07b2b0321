"""A run's folder: which run it holds, and what becomes of an earlier one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qpa_hf.checkpoint import write_text
from qpa_hf.files import is_temporary, locked, naming_full_disk, sweep
from qpa_hf.messages import check_path, one_line
from qpa_hf.schema import read_text
from qpa_hf.training.data import Examples
from qpa_hf.training.settings import RunSettings
from qpa_hf.training.tasks import TASKS

SETTINGS_NAME = "run.yaml"
# A run that a new one is about to replace, and has replaced; under names that nobody gives to a folder of their own.
EARLIER = ".qpa_earlier"
DISCARDED = ".qpa_discarded"
PICTURES = {"loss.png", "probabilities.png", "singular_values.png", "comparison.png"}
# What a run or a comparison writes into its folder.
OF_A_RUN = {SETTINGS_NAME, "checkpoints", "native", "adapter", "runs", "scratch", "comparison.json"} | PICTURES

OF_FILES = {".bin", ".json", ".md", ".png", ".pt", ".pth", ".safetensors", ".yaml"}

# Of a device, what a run that goes on may be given anew: it changes no result.
LIMITS = re.compile(r"^  (device_folder|max_jobs|max_shots): .*\n", re.MULTILINE)


@contextmanager
def started_run(folder: Path, settings: RunSettings, data: Examples, is_fresh: bool = False) -> Iterator[None]:
    """Begin a run in a folder, or go on with it, and keep other processes out of the folder until the end.

    With `is_fresh` an earlier run is replaced: it is kept until `discard` says that the new one has something to show,
    and comes back if that fails before. Settings of a run that never wrote anything else are written over. Nothing
    is changed where the run is refused.

    Raises:
        BlockingIOError: if another process uses the folder.
        FileExistsError: if it holds a run with other settings or on another text, or other files.
        NotADirectoryError: if it is a file, or lies below one.
        DiskFullError: if there is no room for the run.
    """
    _check_place(folder)
    written = _written(settings, data)
    with locked(folder):
        _check(folder, None if is_fresh else written)
        sweep(folder, is_deep=True)
        _put_back(folder)  # of a process that was killed
        try:
            with naming_full_disk(folder):  # while what fills it is there
                if is_fresh:
                    _set_aside(folder)
                if is_fresh or not _is_begun(folder):
                    write_text(folder / SETTINGS_NAME, written)
                yield
        except BaseException:
            _put_back(folder)
            if not _is_begun(folder):
                _clear(folder)
            raise
        discard(folder)


def check_run(folder: Path, settings: RunSettings, data: Examples, is_fresh: bool = False) -> None:
    """Raise what `started_run` would raise for a folder, and leave everything there as it is."""
    _check_place(folder)
    with locked(folder):
        _check(folder, None if is_fresh else _written(settings, data))


def _check_place(folder: Path) -> None:
    check_path(folder)
    for place in (folder, *folder.parents):
        if place.is_file():
            raise NotADirectoryError(f"{place} is a file. Pass a folder to write the run to.")


def _written(settings: RunSettings, data: Examples) -> str:
    """Return what tells a run from others: the text of its settings' file."""
    # Of what the files hold: a run is the same on text that has been moved, and another one on text that has been
    # edited under its old name.
    return f"# SHA-256 of the examples: {TASKS[settings.task].fingerprint(data)}\n{settings.to_yaml()}"


def _check(folder: Path, written: str | None) -> None:
    """Refuse a folder that holds other files than those of the run with these settings; None replaces any run."""
    # A run whose successor was killed still stands aside, and is the one that the folder holds.
    aside = folder / EARLIER / SETTINGS_NAME
    path = aside if aside.is_file() else folder / SETTINGS_NAME
    found = [name for name in _names(folder) if name not in (EARLIER, DISCARDED)]
    if written is None:
        if found and not path.is_file():
            raise FileExistsError(f"{folder} holds no run, so it is not removed. Choose another output folder.")
        if others := [name for name in found if name not in OF_A_RUN]:
            raise FileExistsError(
                f"{folder} holds {others[0]}, which is not part of a run, so nothing is removed. Move it away, or "
                "choose another output folder."
            )
        return
    # Found out now, and not when hours of training are to be written.
    for place in folder.rglob("*"):
        if place.suffix in OF_FILES and place.is_dir():
            raise FileExistsError(
                f"{one_line(place)} is a directory, and a run writes a file there. Move it away, or pass --fresh."
            )
    if not _is_begun(folder):
        return
    if not path.is_file():
        raise FileExistsError(f"{folder} is not empty and holds no run. Choose another output folder.")
    known, written = (LIMITS.sub("", settings) for settings in (read_text(path), written))
    text = written.partition("\n")[2]
    if known != written:
        what = "with other settings"
        if known.endswith(text):
            what = "on other examples (their files have changed, or an older version wrote it)"
        raise FileExistsError(
            f"{folder} holds a run {what}: see {path}. Choose another output folder, or pass --fresh to start "
            "anew in this one."
        )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not is_temporary(path.name))


def _is_begun(folder: Path) -> bool:
    """Whether there is any file but the settings, in the place of the run or where `_put_back` will find it."""
    settings = (folder / SETTINGS_NAME, folder / EARLIER / SETTINGS_NAME)
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path not in settings)
    return any(path.parts[0] != DISCARDED and not any(map(is_temporary, path.parts)) for path in files)


def discard(folder: Path) -> None:
    """Remove the run that a new one replaces."""
    if (folder / EARLIER).is_dir():
        (folder / EARLIER).rename(folder / DISCARDED)  # in one step: half of a run would be put back
        shutil.rmtree(folder / DISCARDED)


def _set_aside(folder: Path) -> None:
    if found := _names(folder):
        (folder / EARLIER).mkdir()
        for name in sorted(found, key=SETTINGS_NAME.__eq__):  # last: then the run is whole
            (folder / name).rename(folder / EARLIER / name)


def _put_back(folder: Path) -> None:
    shutil.rmtree(folder / DISCARDED, ignore_errors=True)
    # Each step leaves the folder in a state that this function mends, so that it may be killed between any two.
    aside = folder / EARLIER
    if (aside / SETTINGS_NAME).is_file():
        _clear(folder)
        (aside / SETTINGS_NAME).rename(folder / SETTINGS_NAME)  # first: nothing is removed if this is cut off
    if aside.is_dir():
        for path in aside.iterdir():
            path.rename(folder / path.name)
        aside.rmdir()


def _clear(folder: Path) -> None:
    """Remove what a run writes into its folder."""
    for path in folder.iterdir():
        if path.name in OF_A_RUN and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name in OF_A_RUN:
            path.unlink()
