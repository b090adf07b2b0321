"""One run of one arm, and the file that it leaves behind: what is in a file is never run again."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks import record
from benchmarks.harness.study import Purpose, Row, Study
from qpa_hf.checkpoint import write_text

KEY = ("arm", "purpose", "rate", "seed", "digest")


@dataclass(frozen=True)
class Job:
    """A run to be done: everything that another process needs to do it."""

    study: Study
    arm: str
    purpose: Purpose
    rate: float
    seed: int
    folder: Path
    device: str = "cpu"

    @property
    def key(self) -> tuple[str, Purpose, float, int, str]:
        """What tells its result from all others."""
        known = [self.study.settings, *self.study.identity(self.arm, self.seed)]
        return (self.arm, self.purpose, self.rate, self.seed, digest(known))

    @property
    def path(self) -> Path:
        """Where the result lies."""
        return path_of(self.folder / self.study.name, *self.key)


def digest(known: Any) -> str:
    """Return what stands for settings: with others a run is another one."""
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


def path_of(folder: Path, arm: str, purpose: str, rate: float, seed: int, of: str) -> Path:
    """Return the file of a run in a task's folder."""
    slug = re.sub(r"[^a-z0-9]+", "-", arm.lower())
    return folder / f"{slug}-{purpose}-rate-{rate:g}-seed-{seed}-{of}.json"


def execute(job: Job) -> Row:
    """Do a run, or read what it left; a failure is returned as a row with its reason, and tried again next time."""
    try:
        if job.path.is_file():
            return json.loads(job.path.read_text(encoding="utf-8"))
        row: Row = dict(zip(KEY, job.key, strict=True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # methods' remarks on the base
            try:
                row |= job.study.run(job.arm, job.purpose, job.rate, job.seed)
            except ArithmeticError as error:
                row["diverged"] = str(error)
        row |= {"environment": environment(job.device), "timestamp": datetime.now(UTC).isoformat(timespec="seconds")}
        write(job.path, row)
        return row
    except Exception as error:  # third parties' methods fail in all kinds of ways; the other arms go on
        return {"arm": job.arm, "failed": " ".join(f"{type(error).__name__}: {error}".split())}


def write(path: Path, row: Row) -> None:
    """Write the file of a run in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(row, allow_nan=False) + "\n")


@lru_cache(maxsize=1)
def environment(device: str) -> dict[str, Any]:
    """Return on what this process runs."""
    return {"commit": record.commit(), "versions": record.versions(), "machine": record.machine(device)}


def settle() -> None:
    """Use one thread: results do not depend on the number of cores, and processes fit beside each other."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()  # of loading a few megabytes
    transformers.utils.logging.set_verbosity_error()
