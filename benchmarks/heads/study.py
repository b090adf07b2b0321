"""The runs: hyperparameters chosen on development sentences, then several seeds on the test sentences."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.heads.arms import ARMS, Arm, Budget, n_trained
from benchmarks.heads.embeddings import Sentences
from benchmarks.quality.runs import environment, path_of, write
from qpa_hf.circuit import seeded

N_DEVELOPMENT = 4000
TUNING_SEED = 0  # the seeds that are reported start after it
Row = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """How many sentences are trained on.

    Args:
        n_rows: how many; of each class with `is_per_class`; None for all.
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
        """How many sentences there are of each kind."""
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


@dataclass(frozen=True)
class Study:
    """All runs of the study; each leaves a file and is not done again.

    Args:
        data: the sentences.
        folder: for the file of each run.
        n_seeds: reported runs of each arm on each part.
    """

    data: Data
    folder: Path
    n_seeds: int

    def run(self) -> Iterator[Row]:
        """Yield a row for each run: the arms that are run everywhere first, and the cheapest parts first."""
        chosen: dict[tuple[str, str], float] = {}
        cases = [(arm, part) for part in PARTS for arm in ARMS if self._takes_part(ARMS[arm], part)]
        for arm, part in sorted(cases, key=lambda case: not ARMS[case[0]].is_everywhere):
            if PARTS[part].tuned_on is None:
                tuning = [self._one(arm, part, "tuning", value, TUNING_SEED) for value in ARMS[arm].grid]
                yield from tuning
                chosen[arm, part] = max(tuning, key=lambda row: row["development"])["value"]
            value = chosen[arm, PARTS[part].tuned_on or part]
            n_seeds = self.n_seeds if ARMS[arm].is_random or PARTS[part].n_rows is not None else 1
            for seed in range(TUNING_SEED + 1, TUNING_SEED + 1 + n_seeds):
                yield self._one(arm, part, "final", value, seed)

    def _takes_part(self, arm: Arm, part: str) -> bool:
        n_rows = PARTS[part].n_rows or len(self.data.pool)
        return (arm.is_everywhere or part == SCREEN) and (arm.max_rows is None or n_rows <= arm.max_rows)

    def _one(self, arm: str, part: str, purpose: str, value: float, seed: int) -> Row:
        known = [ARMS[arm].settings, asdict(PARTS[part]), len(self.data.pool), len(self.data.test)]
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
        path = path_of(self.folder, f"{arm} {part}", purpose, value, seed, digest)
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        row = {"arm": arm, "part": part, "purpose": purpose, "value": value, "seed": seed}
        row |= _fit(ARMS[arm], PARTS[part], self.data, purpose, value, seed)
        row |= {"environment": environment("cpu"), "timestamp": datetime.now(UTC).isoformat(timespec="seconds")}
        write(path, row)
        return row


def _fit(arm: Arm, part: Part, data: Data, purpose: str, value: float, seed: int) -> Row:
    rows = data.rows(part, seed)
    model = arm.make(value, seed, _bounded(part.budget, len(rows)), arm.settings)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # perceptrons say that they stop before they have converged
        model.fit(rows.embeddings.numpy(), rows.labels.numpy())
    seconds = time.process_time() - start
    # The test sentences are not looked at while hyperparameters are chosen.
    scored = {"development": data.development} | ({"test": data.test} if purpose == "final" else {})
    scores = {name: model.score(some.embeddings.numpy(), some.labels.numpy()) for name, some in scored.items()}
    return {"n_trained": n_trained(model), "cpu_seconds": round(seconds, 2), "n_rows": len(rows), **scores}


def _bounded(budget: Budget, n_rows: int) -> Budget:
    return Budget(budget.n_epochs, min(budget.batch_size, n_rows))
