"""The heads as a study: each classifier on each part, hyperparameters chosen on development sentences."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import torch

from benchmarks.harness.study import Arm, Measure, Purpose, Row
from benchmarks.heads.arms import ARMS, Budget, Classifier, n_trained
from benchmarks.heads.embeddings import Sentences
from qpa_hf.reproducible import seeded

N_DEVELOPMENT = 4000


@dataclass(frozen=True)
class Part:
    """How many sentences are trained on.

    Args:
        n_rows: number of sentences, of each class with `is_per_class`; None for all.
        is_per_class: see there.
        budget: for heads.
        tuned_on: another part whose choice of hyperparameters is taken; None to choose anew.
    """

    n_rows: int | None
    is_per_class: bool
    budget: Budget
    tuned_on: str | None = None


SCREEN = "8,000"
PARTS = {
    "8 per class": Part(8, True, Budget(200, 128)),
    "16 per class": Part(16, True, Budget(200, 128)),
    "64 per class": Part(64, True, Budget(200, 128)),
    SCREEN: Part(8000, False, Budget(8, 128)),
    "all": Part(None, False, Budget(4, 256), tuned_on=SCREEN),
}


@dataclass(frozen=True)
class Data:
    """Sentences to choose training rows from, to choose hyperparameters on, and to test on."""

    pool: Sentences
    development: Sentences
    test: Sentences

    @staticmethod
    def split(train: Sentences, test: Sentences) -> Data:
        """Set development sentences apart from the training file; which ones does not depend on any seed."""
        order = torch.randperm(len(train), generator=seeded(0, "development"))
        return Data(train[order[N_DEVELOPMENT:]], train[order[:N_DEVELOPMENT]], test)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of sentences of each kind."""
        return {name: len(getattr(self, name)) for name in ("pool", "development", "test")}

    def rows(self, part: Part, seed: int) -> Sentences:
        """Return a part's training rows, which a seed draws."""
        if part.n_rows is None:
            return self.pool
        order = torch.randperm(len(self.pool), generator=seeded(seed, "training rows"))
        if not part.is_per_class:
            return self.pool[order[: part.n_rows]]
        labels = self.pool.labels[order]
        return self.pool[torch.cat([order[labels == label][: part.n_rows] for label in (0, 1)])]


def on(arm: str, part: str) -> str:
    """Return the name of a classifier on a part."""
    return f"{arm}, {part}"


@dataclass(frozen=True)
class Heads:
    """All classifiers on all parts that they take part in.

    Args:
        data: the sentences.
    """

    data: Data
    name: str = "heads"

    @property
    def settings(self) -> dict[str, Any]:
        """Numbers of sentences."""
        return self.data.sizes

    @property
    def measure(self) -> Measure:
        """Accuracy."""
        return Measure("accuracy", "%", is_higher_better=True)

    @cached_property
    def _cases(self) -> dict[str, tuple[str, str]]:
        pairs = [(arm, part) for part in PARTS for arm in ARMS if self._takes_part(ARMS[arm], part)]
        return {on(*pair): pair for pair in pairs}

    def _takes_part(self, arm: Classifier, part: str) -> bool:
        n_rows = PARTS[part].n_rows or len(self.data.pool)
        return (arm.is_everywhere or part == SCREEN) and (arm.max_rows is None or n_rows <= arm.max_rows)

    @property
    def arms(self) -> Mapping[str, Arm]:
        """A classifier on a part is an arm: hyperparameters are its own, and are chosen on each part."""
        return {name: self._arm(ARMS[arm], arm, PARTS[part]) for name, (arm, part) in self._cases.items()}

    def _arm(self, of: Classifier, arm: str, part: Part) -> Arm:
        tuned_as = None if part.tuned_on is None else on(arm, part.tuned_on)
        is_random = of.is_random or part.n_rows is not None
        return Arm(of.family, partial(self._fit, of, part), None, of.grid, tuned_as, is_random)

    def head(self) -> dict[str, Any]:
        """Return nothing more."""
        return {}

    def identity(self, arm: str, seed: int) -> list[Any]:
        """Return the classifier's settings and the part's."""
        about = self.about(arm)
        return [about["settings"], asdict(PARTS[about["part"]])]

    def about(self, arm: str) -> dict[str, Any]:
        """Return the classifier's name and settings, and the part's name."""
        name, part = self._cases[arm]
        return {"classifier": name, "settings": ARMS[name].settings, "part": part}

    def run(self, arm: str, purpose: Purpose, rate: float, seed: int) -> Row:
        """Fit a classifier and measure it; test sentences are not looked at while hyperparameters are chosen."""
        row, model = self.arms[arm].make(rate, seed)
        scored = {"development": self.data.development} | ({"test": self.data.test} if purpose == "final" else {})
        for name, some in scored.items():
            row[name] = {"accuracy": model.score(some.embeddings.numpy(), some.labels.numpy())}
        return row

    def _fit(self, of: Classifier, part: Part, value: float, seed: int) -> tuple[Row, Any]:
        rows = self.data.rows(part, seed)
        budget = Budget(part.budget.n_epochs, min(part.budget.batch_size, len(rows)))
        model = of.make(value, seed, budget, of.settings)
        start = time.process_time()
        model.fit(rows.embeddings.numpy(), rows.labels.numpy())
        seconds = round(time.process_time() - start, 2)
        return {"n_trainable": n_trained(model), "seconds": seconds, "n_rows": len(rows)}, model
