"""The record of paid jobs: damage, full disks, several processes at once, and kills at any point."""

import multiprocessing
import os
import signal
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import torch

pytest.importorskip("qiskit_ibm_runtime", reason="qiskit-ibm-runtime is not installed: pip install 'qpa-hf[noise]'")

from service import ANGLES, SHOTS, Remote, measure

from qpa_hf.measurement.device.job import JobSize
from qpa_hf.measurement.device.ledger import Ledger

FORK = multiprocessing.get_context("fork")  # a process that has imported everything
SIZE = JobSize(2, 4, SHOTS)


def change(folder, statement, *values):
    with closing(sqlite3.connect(folder / "jobs.sqlite")) as file, file:
        file.execute(statement, values)


def counts_of(numbers):
    return np.array(numbers, dtype="<i4").tobytes()


DAMAGED = {
    "empty": b"",
    "short": counts_of([[SHOTS, 0, 0, 0]]),
    "long": counts_of([[SHOTS, 0, 0, 0]] * 3),
    "half a number": counts_of([[SHOTS, 0, 0, 0]] * 2)[:-1],
    "other sums": counts_of([[SHOTS, 0, 0, 1]] * 2),
    "negative": counts_of([[SHOTS + 1, -1, 0, 0]] * 2),
    "text": "counts",
    "a number": 7,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_counts_are_fetched_again_and_not_paid_again(name, tmp_path, service):
    first = measure(tmp_path / "jobs")
    change(tmp_path / "jobs", "UPDATE jobs SET counts = ?", DAMAGED[name])
    assert torch.equal(measure(tmp_path / "jobs", max_jobs=1), first)
    assert torch.equal(measure(tmp_path / "jobs", max_jobs=1), first)
    assert len(service.tags) == Ledger(tmp_path / "jobs").n_jobs == 1


def test_a_list_of_jobs_that_lags_behind_pays_for_nothing_twice(tmp_path, service, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("qpa_hf.measurement.device.sampling._wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path / "jobs")
    monkeypatch.setattr(service, "jobs", lambda **kwargs: [])
    assert measure(tmp_path / "jobs").sum() == 2 * SHOTS
    assert len(service.tags) == 1


def interrupt(*args):
    raise KeyboardInterrupt


def test_damaged_counts_of_a_job_that_is_gone_are_not_paid_for_silently(tmp_path, service):
    measure(tmp_path / "jobs")
    change(tmp_path / "jobs", "UPDATE jobs SET counts = ?", b"")
    for path in service.folder.iterdir():
        path.unlink()
    with pytest.raises(RuntimeError, match="ibm_torino no longer has job qpa-.*, whose counts in .* damaged"):
        measure(tmp_path / "jobs")
    assert service.tags == []


@pytest.mark.parametrize(
    "counts", [torch.zeros(2, 4), torch.full((2, 2), SHOTS // 2), torch.tensor([[SHOTS + 1, -1, 0, 0]] * 2)]
)
def test_counts_that_are_not_those_of_the_job_are_not_kept(counts, tmp_path):
    tmp_path.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="are not 50 shots for each of 2 circuits"):
        Ledger(tmp_path).save("key", 0, SIZE, counts)


BROKEN = {
    "torn": lambda content: content[: len(content) // 2],
    "another file": lambda content: b"key,counts\n" * 100,
    "overwritten": lambda content: content[:100] + b"\xff" * (len(content) - 100),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_refused_and_pays_for_nothing(name, tmp_path, service):
    measure(tmp_path / "jobs")
    path = tmp_path / "jobs" / "jobs.sqlite"
    path.write_bytes(BROKEN[name](path.read_bytes()))
    with pytest.raises(ValueError, match="jobs.sqlite is damaged, or no record of jobs") as error:
        measure(tmp_path / "jobs", seed=1)
    assert "\n" not in str(error.value)
    assert len(service.tags) == 1


def test_a_new_folder_finds_the_jobs_that_the_service_has(tmp_path, service):
    first = measure(tmp_path / "jobs")
    assert torch.equal(measure(tmp_path / "other"), first)
    assert len(service.tags) == 1


def test_jobs_of_an_earlier_version_are_refused(tmp_path, service):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "jobs.jsonl").write_text('{"event": "submitted", "shots": 1, "key": "a"}\n{"eve')
    with pytest.raises(ValueError, match="holds the jobs of an earlier version .jobs.jsonl."):
        measure(tmp_path / "jobs")
    assert service.tags == []


def test_a_newer_version_is_refused(tmp_path, service):
    measure(tmp_path / "jobs")
    change(tmp_path / "jobs", "PRAGMA user_version = 2")
    with pytest.raises(ValueError, match="was written by a newer version of qpa_hf"):
        measure(tmp_path / "jobs", seed=1)


@pytest.mark.parametrize("content", [b"", None])
def test_a_file_that_was_only_begun_is_an_empty_one(content, tmp_path, service):
    (tmp_path / "jobs").mkdir()
    if content is not None:
        (tmp_path / "jobs" / "jobs.sqlite").write_bytes(content)
    assert Ledger(tmp_path / "jobs").n_jobs == 0
    measure(tmp_path / "jobs")
    assert Ledger(tmp_path / "jobs").n_jobs == 1


def filling(connect, n_pages):
    """Return a `connect` whose files have no room for more pages, as on a full disk."""

    def connected(*args, **kwargs):
        file = connect(*args, **kwargs)
        file.execute(f"PRAGMA max_page_count = {n_pages}")
        return file

    return connected


WIDE = torch.rand(2, 2, 11)  # its counts take several pages


def measure_all(folder, seeds):
    for seed in seeds:
        assert measure(folder, WIDE, seed=seed).sum() == 2 * SHOTS


@pytest.mark.parametrize("n_pages", [1, 4])  # no room for the row, and none for the counts
def test_a_full_disk_tears_nothing_and_pays_for_nothing_twice(n_pages, tmp_path, service, monkeypatch):
    measure(tmp_path / "jobs")
    monkeypatch.setattr("service.ANGLES", WIDE)
    with monkeypatch.context() as patch:
        patch.setattr("qpa_hf.measurement.device.ledger.sqlite3.connect", filling(sqlite3.connect, n_pages))
        with pytest.raises(RuntimeError, match="cannot be read or written .database or disk is full.") as error:
            measure_all(tmp_path / "jobs", range(50))
    assert "\n" not in str(error.value)
    measure_all(tmp_path / "jobs", range(len(service.tags) + 1))
    assert len(service.tags) == len(set(service.tags)) == Ledger(tmp_path / "jobs").n_jobs


def test_a_folder_that_cannot_be_written_is_said(tmp_path, service):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="Nothing can be written in .*file/jobs .Not a directory."):
        measure(tmp_path / "file" / "jobs")
    assert service.tags == []


def run(function, *args):
    """Run a function in a process of its own and return its exit code."""
    process = FORK.Process(target=function, args=args)
    process.start()
    process.join(60)
    return process.exitcode


def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def submit_and_die(self, *args):
    Remote.genuine(self, *args)
    kill()


Remote.genuine = Remote.submit
MOMENTS = {  # what is replaced by a kill, and how many jobs are paid for by then
    "before its row": ("qpa_hf.measurement.device.ledger.Ledger.submit", kill, 0),
    "between its row and its submission": ("service.Remote.submit", kill, 0),
    "as soon as it is submitted": ("service.Remote.submit", submit_and_die, 1),
    "before its id is recorded": ("qpa_hf.measurement.device.ledger.Ledger.submitted", kill, 1),
    "before its result": ("qpa_hf.measurement.device.sampling._wait", kill, 1),
    "before its counts are kept": ("qpa_hf.measurement.device.ledger.Ledger.save", kill, 1),
    "in the midst of writing": ("qpa_hf.measurement.device.ledger.is_whole", kill, 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_pays_for_nothing_twice(moment, tmp_path, service, monkeypatch):
    name, replacement, n_paid = MOMENTS[moment]
    with monkeypatch.context() as patch:
        patch.setattr(name, replacement)
        assert run(measure, tmp_path / "jobs") == -signal.SIGKILL
    assert len(service.tags) == n_paid
    assert measure(tmp_path / "jobs", max_jobs=1).sum() == 2 * SHOTS
    assert len(service.tags) == 1
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == ["jobs.lock", "jobs.sqlite"]


def begin_and_die(folder):
    with Ledger(folder)._written() as rows:
        rows.execute("UPDATE jobs SET counts = zeroblob(100000)")
        rows.execute("PRAGMA cache_spill = 1")
        kill()


def test_a_kill_in_a_transaction_changes_nothing(tmp_path, service):
    first = measure(tmp_path / "jobs")
    assert run(begin_and_die, tmp_path / "jobs") == -signal.SIGKILL
    assert torch.equal(measure(tmp_path / "jobs"), first)
    assert len(service.tags) == 1


N_SEEDS = 6


def work(folder, barrier, first):
    barrier.wait(60)
    for i in range(N_SEEDS):
        measure(folder, seed=(first + i) % N_SEEDS)


@pytest.mark.parametrize("firsts", [(0, 0, 0), (0, 2, 4)])  # all at once for the same job, and in different orders
def test_three_processes_pay_for_each_job_once(firsts, tmp_path, service):
    barrier = FORK.Barrier(3)
    workers = [FORK.Process(target=work, args=(tmp_path / "jobs", barrier, first)) for first in firsts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(service.tags) == len(set(service.tags)) == N_SEEDS
    assert Ledger(tmp_path / "jobs").n_jobs == Ledger(tmp_path / "jobs").n_kept == N_SEEDS


def limited(folder, barrier, seed):
    barrier.wait(60)
    try:
        measure(folder, seed=seed, max_jobs=2)
    except RuntimeError as error:
        assert "`max_jobs`=2 would be passed" in str(error)  # noqa: PT017
        os._exit(3)


def test_three_processes_together_pass_no_limit(tmp_path, service):
    barrier = FORK.Barrier(3)
    workers = [FORK.Process(target=limited, args=(tmp_path / "jobs", barrier, seed)) for seed in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert sorted(worker.exitcode for worker in workers) == [0, 0, 3]
    assert len(service.tags) == 2


def test_jobs_are_split_by_the_limit_of_executions(tmp_path, service, monkeypatch):
    monkeypatch.setattr("qpa_hf.measurement.device.limits.MAX_EXECUTIONS", 2 * SHOTS)
    angles = torch.rand(5, 1, 2)
    counts = measure(tmp_path / "jobs", angles)
    assert counts.shape == (5, 4)
    assert counts.sum(-1).tolist() == [SHOTS] * 5
    assert sorted(path.read_text() for path in service.folder.iterdir()) == ["1 50 2", "2 50 2", "2 50 2"]
    assert torch.equal(measure(tmp_path / "jobs", angles, max_jobs=3), counts)


def test_a_measurement_that_passes_a_limit_pays_for_no_part(tmp_path, service, monkeypatch):
    monkeypatch.setattr("qpa_hf.measurement.device.limits.MAX_EXECUTIONS", 2 * SHOTS)
    angles = torch.rand(5, 1, 2)
    with pytest.raises(RuntimeError, match="`max_jobs`=2 would be passed: 0 are used and the next 3 jobs need 3"):
        measure(tmp_path / "jobs", angles, max_jobs=2)
    assert service.tags == []


def test_more_shots_than_the_service_takes_are_refused(tmp_path, service):
    with pytest.raises(ValueError, match="100,001 shots of a circuit are more than the 100,000 that a device takes"):
        measure(tmp_path / "jobs", ANGLES, shots=100_001)
    assert not (tmp_path / "jobs").exists()
