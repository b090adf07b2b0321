"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.quality.mnist import Mnist
from benchmarks.quality.sst2 import Sst2
from benchmarks.quality.task import Task
from benchmarks.quality.wikitext import Wikitext


def _sst2(data: Path, cache: Path, quick: bool) -> Task:
    sizes = {"n_train": 2000, "n_development": 1000, "n_test": 1000} if quick else {}
    return Sst2(data / "sst2", cache, **sizes)


def _wikitext(name: str, adapted: str) -> Callable[[Path, Path, bool], Task]:
    def task(data: Path, _: Path, quick: bool) -> Task:
        sizes = {"steps": 20, "test_share": 16, "padded_share": 128} if quick else {}
        return Wikitext(name, data / "wikitext-2", adapted, **sizes)

    return task


def _mnist(data: Path, cache: Path, quick: bool) -> Task:
    return Mnist(n_train=512, n_development=256, n_test=256, n_epochs=1, n_basis=128) if quick else Mnist()


# From the folder of all data, the folder for what is kept, and whether sizes are those of a rough first look.
TASKS: dict[str, Callable[[Path, Path, bool], Task]] = {
    "sst2": _sst2,
    "wikitext": _wikitext("wikitext", "all"),
    "wikitext-head": _wikitext("wikitext-head", "head"),
    "mnist": _mnist,
}
