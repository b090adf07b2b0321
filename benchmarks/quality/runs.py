"""One run of one arm, and the file it leaves behind: what is in a file is never run again."""

from __future__ import annotations

import enum
import hashlib
import json
import math
import re
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from peft import PeftConfig

from benchmarks import record
from benchmarks.quality.arms import ARMS
from benchmarks.quality.fitting import MAX_NORM, WARMUP, fit
from benchmarks.quality.task import Task
from qpa_hf.checkpoint import write_text

Row = dict[str, Any]
KEY = ("arm", "purpose", "rate", "seed", "digest")
PARTS = {"tuning": ("development",), "final": ("development", "test")}  # the test part chooses no rate

# Of a configuration: where it came from, not what it says.
NOT_SETTINGS = ("auto_mapping", "base_model_name_or_path", "peft_version", "revision", "layout")


@dataclass(frozen=True)
class Job:
    """A run to be done: everything that another process needs to do it."""

    task: Task
    arm: str
    purpose: Literal["tuning", "final"]
    rate: float
    seed: int
    device: str
    folder: Path

    @property
    def key(self) -> tuple[str, str, float, int, str]:
        """What tells its result from all others."""
        return (self.arm, self.purpose, self.rate, self.seed, self._digest)

    @property
    def path(self) -> Path:
        """Where the result lies."""
        return path_of(self.folder / self.task.name, *self.key)

    @property
    def _digest(self) -> str:
        """Stands for the task's settings, the loop's and the adapter's: with others the run is another one."""
        loop = {"warmup": WARMUP, "max_norm": MAX_NORM}
        known = [self.task.settings, loop, plain(self.config())]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]

    def config(self) -> PeftConfig | None:
        """Return a fresh configuration of the adapter."""
        return ARMS[self.arm].config(self.task.targets, self.seed)


def path_of(folder: Path, arm: str, purpose: str, rate: float, seed: int, digest: str) -> Path:
    """Return the file of a run in a task's folder."""
    slug = re.sub(r"[^a-z0-9]+", "-", arm.lower())
    return folder / f"{slug}-{purpose}-rate-{rate:g}-seed-{seed}-{digest}.json"


def plain(config: PeftConfig | None) -> dict[str, Any]:
    """Return a configuration's settings as JSON has them."""
    settings = {} if config is None else config.to_dict()
    return {key: _plain(value) for key, value in settings.items() if key not in NOT_SETTINGS}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


@lru_cache(maxsize=1)
def environment(device: str) -> dict[str, Any]:
    """Return on what this process runs."""
    return {"commit": record.commit(), "versions": record.versions(), "machine": record.machine(device)}


def execute(job: Job) -> Row:
    """Do a run, or read what it left; a failure is returned as a row with its reason, and tried again next time."""
    try:
        if job.path.is_file():
            return json.loads(job.path.read_text(encoding="utf-8"))
        row = _execute(job)
        write(job.path, row)
        return row
    except Exception as error:  # third parties' methods fail in all kinds of ways; the other arms go on
        return {"arm": job.arm, "failed": " ".join(f"{type(error).__name__}: {error}".split())}


def write(path: Path, row: Row) -> None:
    """Write the file of a run in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(row, allow_nan=False) + "\n")


def _execute(job: Job) -> Row:
    config = job.config()
    settings = plain(config)
    row: Row = dict(zip(KEY, job.key, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # methods' remarks on the base
        try:
            fitted = fit(job.task, config, job.rate, job.seed, job.device)
        except ArithmeticError as error:
            parts = dict.fromkeys(PARTS[job.purpose], {"cross_entropy": None})
            return row | _origin(job, settings) | {"diverged": str(error)} | parts
    row |= {"n_trainable": fitted.n_trainable, "seconds": round(fitted.seconds, 2), "train_loss": _finite(fitted.loss)}
    for part in PARTS[job.purpose]:
        row[part] = {key: _finite(value) for key, value in job.task.evaluate(fitted.model, part).items()}
    return row | _origin(job, settings)


def _origin(job: Job, settings: dict[str, Any]) -> Row:
    timestamp = datetime.now(UTC).isoformat(timespec="seconds")
    return {"config": settings, "environment": environment(job.device), "timestamp": timestamp}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def settle() -> None:
    """Use one thread: results do not depend on the number of cores, and processes fit beside each other."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()  # of loading a few megabytes
    transformers.utils.logging.set_verbosity_error()
