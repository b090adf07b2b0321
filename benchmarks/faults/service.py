"""A stand-in for IBM's service that keeps what was paid in files, which outlive every client that is killed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

NAME = "ibm_loopback"
PAID = "paid.txt"


class Service:
    """An account with one device of five qubits.

    Args:
        folder: where the paid jobs are kept, a line with tag, shots, circuits and qubits for each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def backend(self, name: str, **_: Any) -> Any:
        """Return the device."""
        return device()

    def backends(self, **_: Any) -> list[Any]:
        """Return all devices."""
        return [device()]

    def jobs(self, *, job_tags: list[str], limit: int | None = 10, **_: Any) -> list[Any]:
        """Return the jobs that have one of the tags, the newest first."""
        found = [_Job(*line) for line in paid(self.folder) if line[0] in job_tags]
        return found[::-1][:limit]

    def job(self, job_id: str) -> Any:
        """Return the job that has an id."""
        return next(_Job(*line) for line in paid(self.folder) if line[0] == job_id)

    def sampler(self, mode: Any = None, options: Any = None) -> Any:
        """Stand in for SamplerV2."""
        return SimpleNamespace(run=lambda pubs, *, shots=None: self._submit(options, pubs, shots))

    def _submit(self, options: Any, pubs: list[Any], shots: int) -> Any:
        (tag,) = options["environment"]["job_tags"]
        ((circuit, values),) = [pub[:2] for pub in pubs]
        line = f"{tag} {shots} {len(values)} {circuit.num_clbits}\n"
        file = os.open(self.folder / PAID, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, line.encode())  # one call: a killed client has paid or has not
        os.close(file)
        return _Job(tag, shots, len(values), circuit.num_clbits)


class _Job:
    """A finished job; its counts are drawn from its tag."""

    def __init__(self, tag: str, shots: int, n_circuits: int, n_bits: int) -> None:
        self.tag, self.shape = tag, (n_circuits, shots, n_bits)

    def job_id(self) -> str:
        return self.tag

    def in_final_state(self) -> bool:
        return True

    def status(self) -> str:
        return "DONE"

    def result(self, **_: Any) -> list[Any]:
        from qiskit.primitives import BitArray

        seed = int.from_bytes(hashlib.sha256(self.tag.encode()).digest()[:8])
        bits = np.random.default_rng(seed).integers(0, 2, self.shape).astype(bool)
        return [SimpleNamespace(data=SimpleNamespace(meas=BitArray.from_bool_array(bits)))]


def paid(folder: Path) -> list[tuple[str, int, int, int]]:
    """Return (tag, shots, circuits, qubits) of each paid job, in order."""
    path = folder / PAID
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [(tag, *map(int, numbers)) for tag, *numbers in map(str.split, lines)]  # type: ignore[misc]


@cache
def device() -> Any:
    """Return a device of five qubits in a line, without IBM."""
    from qiskit.providers.fake_provider import GenericBackendV2

    edges = [[i, j] for i in range(5) for j in range(5) if abs(i - j) == 1]
    return GenericBackendV2(5, coupling_map=edges, seed=0)


@contextmanager
def connected(folder: Path) -> Iterator[Service]:
    """Let `QiskitRuntimeService()` be an account of the stand-in within this block."""
    service = Service(folder)
    with (
        patch("qiskit_ibm_runtime.QiskitRuntimeService", lambda *_, **__: service),
        patch("qiskit_ibm_runtime.SamplerV2", service.sampler),
    ):
        yield service
