"""A run's folder: the counts of every finished job and a line for every one submitted, so that none is paid twice."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def job_key(angles: Tensor, ansatz: str, shots: int, device: str, seed: int) -> str:
    """Return what tells a job from all others: the same circuits, shots, device and seed give the same key."""
    what = {"ansatz": ansatz, "shape": list(angles.shape), "shots": shots, "device": device, "seed": seed}
    content = json.dumps(what, sort_keys=True).encode() + angles.detach().double().cpu().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


class Ledger:
    """Finished jobs as `<key>.safetensors`, and `jobs.jsonl` with one line for each submission and each failure.

    Args:
        folder: where they lie; made if it is not there.

    Raises:
        ValueError: if `jobs.jsonl` is not one of ours.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "jobs.jsonl"
        self.events: list[dict[str, Any]] = []
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        for number, line in enumerate(lines, 1):
            try:
                self.events.append(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f"Line {number} of {self.path} is not JSON. It says which jobs were paid: mend it, or use a new "
                    "folder."
                ) from error

    def _write(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def n_jobs(self) -> int:
        """Jobs submitted so far, those that failed included."""
        return sum(event["event"] == "submitted" for event in self.events)

    @property
    def n_shots(self) -> int:
        """Shots of all jobs submitted so far, over all their circuits."""
        return sum(event["shots"] for event in self.events if event["event"] == "submitted")

    def n_failures(self, key: str) -> int:
        """Return how often a job has failed."""
        return sum(event["event"] == "failed" and event["key"] == key for event in self.events)

    def check_limits(self, shots: int, max_jobs: int | None, max_shots: int | None) -> None:
        """Stop before a limit would be passed.

        Args:
            shots: of the next job, over all its circuits.
            max_jobs: of the whole folder; None for no limit.
            max_shots: likewise.

        Raises:
            RuntimeError: if the next job would pass a limit.
        """
        for name, used, more, limit in (
            ("max_jobs", self.n_jobs, 1, max_jobs),
            ("max_shots", self.n_shots, shots, max_shots),
        ):
            if limit is not None and used + more > limit:
                raise RuntimeError(
                    f"`{name}`={limit:,} would be passed: {used:,} are used and the next job needs {more:,}. Nothing "
                    f"was submitted; all results so far are in {self.folder}. Raise `{name}` to go on."
                )

    def submitted(self, key: str, shots: int) -> None:
        """Record that a job is about to be submitted; before it is, so that an interruption cannot hide it."""
        self._write({"event": "submitted", "key": key, "shots": shots})

    def failed(self, key: str, why: str) -> None:
        """Record that a job failed."""
        self._write({"event": "failed", "key": key, "why": why})

    def load(self, key: str) -> Tensor | None:
        """Return the counts of a finished job, (C, 2**n_qubits) int64, or None."""
        path = self.folder / f"{key}.safetensors"
        return load_file(path)["counts"].long() if path.is_file() else None

    def save(self, key: str, counts: Tensor) -> None:
        """Keep the counts of a finished job; an interruption leaves all of them or none."""
        path = self.folder / f"{key}.safetensors"
        part = path.with_suffix(".part")
        save_file({"counts": counts.to(torch.int32)}, part)
        os.replace(part, path)
