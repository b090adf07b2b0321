"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.quality.sst2 import Sst2
from benchmarks.quality.task import Task


def _sst2(data: Path, cache: Path, quick: bool) -> Task:
    sizes = {"n_train": 2000, "n_development": 1000, "n_test": 1000} if quick else {}
    return Sst2(data / "sst2", cache, **sizes)


# From the folder of all data, the folder for what is kept, and whether sizes are those of a rough first look.
TASKS: dict[str, Callable[[Path, Path, bool], Task]] = {"sst2": _sst2}
