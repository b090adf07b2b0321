"""A run's folder: a row for every submitted job, with its counts once it has ended, so that none is paid twice.

A row is written before its job is submitted: a process that is killed in between leaves a row whose job the service
does not know, and the next one submits that job. Killed after it, the job is at the service, by its tag.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import BaseFileLock, FileLock
from torch import Tensor

from qpa_hf.measurement.device.job import JobSize, is_whole

NAME, LOCK_NAME, FORMER_NAME = "jobs.sqlite", "jobs.lock", "jobs.jsonl"
FORM = 1  # of the table below, kept in the file's `user_version`
TABLE = """CREATE TABLE jobs (
    key TEXT NOT NULL,           -- see `job_key`
    attempt INTEGER NOT NULL,    -- failed jobs of the same key before this one
    n_circuits INTEGER NOT NULL,
    n_states INTEGER NOT NULL,
    shots INTEGER NOT NULL,      -- of each circuit
    id TEXT,                     -- the service's, once it has the job
    failure TEXT,                -- why the job will never have counts
    counts BLOB,                 -- (n_circuits, n_states), int32, little-endian
    PRIMARY KEY (key, attempt)
)"""
COUNT = np.dtype("<i4")
PATIENCE = 60.0  # seconds to wait for another process that writes


class Ledger:
    """The jobs of a folder. Any number of processes may use it at once; nothing is made before a job is submitted.

    Args:
        folder: the folder that holds the record.

    Raises:
        ValueError: by every method, if the file is damaged or of another version.
        RuntimeError: by every method, if it cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME

    @contextmanager
    def locked(self) -> Iterator[BaseFileLock]:
        """Hold the lock under which jobs are looked for and submitted; it ends with the process that holds it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK_NAME)
            lock.acquire()
        except OSError as error:
            raise RuntimeError(
                f"Nothing can be written in {self.folder} ({error.strerror}), so that no job could be recorded and "
                "none is submitted. Name another `device_folder`."
            ) from error
        try:
            yield lock
        finally:
            lock.release()

    @contextmanager
    def _rows(self, begin: str) -> Iterator[sqlite3.Connection]:
        """Yield the file, open: all statements take effect, or none."""
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as rows:
                rows.execute(begin)
                yield rows
                rows.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise RuntimeError(
                f"{self.path} cannot be read or written ({error}). Free space or mend its folder, and run again: what "
                "was submitted is not submitted again."
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path} is damaged, or no record of jobs ({error}). It says which jobs were paid: put back a "
                "copy, or name another `device_folder`; jobs that IBM still has are found there and not paid again."
            ) from error

    @contextmanager
    def _written(self) -> Iterator[sqlite3.Connection]:
        """Yield the table, which no other process writes meanwhile; it is made in a new file."""
        with self._rows("BEGIN IMMEDIATE") as rows:
            if not self._has_table(rows):
                rows.execute(TABLE)
                rows.execute(f"PRAGMA user_version = {FORM}")
            yield rows

    def _has_table(self, rows: sqlite3.Connection) -> bool:
        (form,) = rows.execute("PRAGMA user_version").fetchone()
        if form not in (0, FORM):
            raise ValueError(
                f"{self.path} was written by a newer version of qpa_hf. Upgrade qpa_hf, or name another "
                "`device_folder`."
            )
        return form == FORM

    def _read(self, query: str, *values: object) -> tuple[object, ...] | None:
        """Return the first row of a query, None if there is none or no file yet."""
        if (self.folder / FORMER_NAME).exists():
            raise ValueError(
                f"{self.folder} holds the jobs of an earlier version ({FORMER_NAME}), which cannot be read. Name "
                "another `device_folder`; jobs that IBM still has are found there and not paid again."
            )
        if not self.path.exists():
            return None
        with self._rows("BEGIN") as rows:
            return rows.execute(query, values).fetchone() if self._has_table(rows) else None

    def _number(self, query: str, *values: object) -> int:
        row = self._read(query, *values)
        return int(str(row[0])) if row is not None and row[0] is not None else 0

    @property
    def n_jobs(self) -> int:
        """Jobs submitted so far, those that failed included."""
        return self._number("SELECT COUNT(*) FROM jobs")

    @property
    def n_shots(self) -> int:
        """Shots of all jobs submitted so far, over all their circuits."""
        return self._number("SELECT SUM(n_circuits * shots) FROM jobs")

    @property
    def n_kept(self) -> int:
        """Jobs whose counts are kept."""
        return self._number("SELECT COUNT(*) FROM jobs WHERE counts IS NOT NULL")

    def n_failures(self, key: str) -> int:
        """Return how often a job has failed."""
        return self._number("SELECT COUNT(*) FROM jobs WHERE key = ? AND failure IS NOT NULL", key)

    def job_id(self, key: str) -> str | None:
        """Return the service's id of a job that has not failed, None if none is known."""
        row = self._read("SELECT id FROM jobs WHERE key = ? AND failure IS NULL", key)
        return str(row[0]) if row is not None and row[0] is not None else None

    def is_submitted(self, key: str) -> bool:
        """Whether a job is in a row, of which it is not known that it failed."""
        return bool(self._number("SELECT COUNT(*) FROM jobs WHERE key = ? AND failure IS NULL", key))

    def counts(self, key: str, size: JobSize) -> Tensor | None:
        """Return the counts of a finished job, int64; None if it has not ended, or they are damaged."""
        row = self._read("SELECT counts FROM jobs WHERE key = ? AND failure IS NULL", key)
        if row is None or not isinstance(row[0], bytes) or len(row[0]) % COUNT.itemsize:
            return None
        numbers = torch.from_numpy(np.frombuffer(row[0], COUNT).astype(np.int64))
        if numbers.numel() != size.n_circuits * size.n_states:
            return None
        counts = numbers.view(size.n_circuits, size.n_states)
        return counts if is_whole(counts, size) else None

    def submit(
        self, key: str, size: JobSize, max_jobs: int | None, max_shots: int | None, ahead: Sequence[JobSize] = ()
    ) -> None:
        """Record a job that is about to be submitted, unless it is recorded already or would pass a limit.

        Args:
            key: the key of the job, see `job_key`.
            size: the size of the job.
            max_jobs: the largest number of jobs of the whole folder; None for no limit.
            max_shots: the largest number of shots of the whole folder; None for no limit.
            ahead: the sizes of the jobs that the same measurement needs after this one; if these do not fit, the first
                one would be paid for nothing.

        Raises:
            RuntimeError: if a limit would be passed; nothing is recorded then.
        """
        # Counting and recording are one transaction: two processes cannot both take the last job that a limit leaves.
        needed = [size, *ahead]
        with self._written() as rows:
            attempt = _attempt(rows, key)
            if rows.execute("SELECT 1 FROM jobs WHERE key = ? AND attempt = ?", (key, attempt)).fetchone():
                return
            n_jobs, n_shots = rows.execute("SELECT COUNT(*), TOTAL(n_circuits * shots) FROM jobs").fetchone()
            shots = sum(one.n_circuits * one.shots for one in needed)
            for name, used, more, limit in (
                ("max_jobs", n_jobs, len(needed), max_jobs),
                ("max_shots", int(n_shots), shots, max_shots),
            ):
                if limit is not None and used + more > limit:
                    jobs = "the next job needs" if len(needed) == 1 else f"the next {len(needed)} jobs need"
                    raise RuntimeError(
                        f"`{name}`={limit:,} would be passed: {used:,} are used and {jobs} {more:,}. Nothing was "
                        f"submitted; all results so far are in {self.folder}. Raise `{name}` to go on."
                    )
            _insert(rows, key, attempt, size)

    def submitted(self, key: str, job_id: str) -> None:
        """Record that the service has a job."""
        with self._written() as rows:
            rows.execute("UPDATE jobs SET id = ? WHERE key = ? AND failure IS NULL", (job_id, key))

    def refused(self, key: str) -> None:
        """Take back the row of a job that the service would not have: it cost nothing."""
        with self._written() as rows:
            rows.execute("DELETE FROM jobs WHERE key = ? AND failure IS NULL AND counts IS NULL", (key,))

    def failed(self, key: str, attempt: int, size: JobSize, why: str) -> None:
        """Record that a job failed, whoever submitted it."""
        with self._written() as rows:
            _insert(rows, key, attempt, size)
            rows.execute("UPDATE jobs SET failure = ? WHERE key = ? AND attempt = ?", (why, key, attempt))

    def save(self, key: str, attempt: int, size: JobSize, counts: Tensor) -> None:
        """Keep the counts of a finished job, whoever submitted it.

        Raises:
            ValueError: if they are not those of such a job.
        """
        if not is_whole(counts, size):
            raise ValueError(f"The counts of a job are not {size.shots} shots for each of {size.n_circuits} circuits.")
        numbers = counts.cpu().numpy().astype(COUNT).tobytes()
        with self._written() as rows:
            _insert(rows, key, attempt, size)
            rows.execute("UPDATE jobs SET counts = ? WHERE key = ? AND attempt = ?", (numbers, key, attempt))


def _attempt(rows: sqlite3.Connection, key: str) -> int:
    (n,) = rows.execute("SELECT COUNT(*) FROM jobs WHERE key = ? AND failure IS NOT NULL", (key,)).fetchone()
    return n


def _insert(rows: sqlite3.Connection, key: str, attempt: int, size: JobSize) -> None:
    values = (key, attempt, size.n_circuits, size.n_states, size.shots)
    names = "key, attempt, n_circuits, n_states, shots"
    rows.execute(f"INSERT OR IGNORE INTO jobs ({names}) VALUES (?, ?, ?, ?, ?)", values)
