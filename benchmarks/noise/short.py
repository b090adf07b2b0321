"""The quality bench's tasks with fewer steps: the same base, data, head and test part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.quality.sst2 import Sst2
from benchmarks.quality.task import Batch, Measured, Part, Targets, Task
from benchmarks.quality.wikitext import Wikitext


@dataclass(frozen=True)
class Short:
    """A task with fewer steps; see `Task`.

    Args:
        whole: the bench's task.
        steps: of training.
    """

    whole: Task
    steps: int

    @property
    def name(self) -> str:
        """The bench's name."""
        return self.whole.name

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on, without paths of this machine."""
        return self.whole.settings | {"steps": self.steps}

    @property
    def targets(self) -> Targets:
        """What is adapted."""
        return self.whole.targets

    @property
    def n_basis(self) -> int:
        """From how many training examples bases are found."""
        return self.whole.n_basis

    def base(self) -> nn.Module:
        """Return a fresh copy of the frozen base."""
        return self.whole.base()

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield the first of the bench's batches."""
        return islice(self.whole.batches(seed), self.steps)

    def n_steps(self) -> int:
        """How many batches a run has."""
        return self.steps

    def evaluate(self, model: nn.Module, part: Part) -> Measured:
        """Measure the test part; nothing is chosen here, so the development part is left alone."""
        if part == "test":
            return self.whole.evaluate(model, part)
        return Measured({"cross_entropy": math.nan}, torch.empty(0))


def _sst2(data: Path, cache: Path, quick: bool) -> Task:
    sizes = {"n_train": 64, "n_test": 64, "n_basis": 32} if quick else {"n_basis": 256}
    return Short(Sst2(data / "sst2", cache, n_development=32, batch_size=16, **sizes), 2 if quick else 128)


def _wikitext(data: Path, _: Path, quick: bool) -> Task:
    sizes = {"test_share": 64, "n_basis": 4} if quick else {"test_share": 24, "n_basis": 32}
    return Short(Wikitext("wikitext", data / "wikitext-2", length=128, padded_share=4096, **sizes), 2 if quick else 32)


TASKS: dict[str, Callable[[Path, Path, bool], Task]] = {"wikitext": _wikitext, "sst2": _sst2}
