"""`sample` on the fake devices in SamplerV2's local mode: counts, cache, limits, and what a failing job does.

Jobs that fail, hang or come back short exist only on real machines, so those are stand-ins at the one place where a
job enters: what the fake device's `submit` returns. An account's service is a stand-in too.
"""

import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch

from qpa_hf.circuit import angles_shape
from qpa_hf.measurement.device import JobFailed, sample
from qpa_hf.measurement.device.machines import Machine, find_machine
from qpa_hf.measurement.noise import noisy_probabilities

pytest.importorskip("qiskit_aer", reason="Qiskit Aer is not installed: pip install 'qpa-hf[noise]'")
pytest.importorskip("qiskit_ibm_runtime", reason="qiskit-ibm-runtime is not installed: pip install 'qpa-hf[noise]'")

ANGLES = torch.tensor([[[0.3, 1.1]], [[2.0, -0.4]]])


def measure(folder, angles=ANGLES, shots=50, device="fake_torino", **kwargs):
    return sample(angles, "ry_cnot", shots, device, folder, **{"retry_wait": 0.0} | kwargs)


def rows(folder):
    """Return what became of each submitted job, in their order."""
    with closing(sqlite3.connect(folder / "jobs.sqlite")) as file:
        found = file.execute("SELECT failure, counts FROM jobs ORDER BY rowid").fetchall()
    return ["failed" if failure else "kept" if counts else "open" for failure, counts in found]


class Job:
    """A stand-in for a job of a real machine."""

    def __init__(self, job=None, error=None, is_done=True, lost_shots=0):
        self.job, self.error, self.is_done, self.lost_shots = job, error, is_done, lost_shots

    def job_id(self):
        return "d0"

    def in_final_state(self):
        return self.is_done

    def status(self):
        return "DONE" if self.error is None else "ERROR"

    def result(self):
        if self.error is not None:
            raise self.error
        bits = self.job.result()[0].data.meas
        kept = bits.slice_shots(range(bits.num_shots - self.lost_shots))
        return [SimpleNamespace(data=SimpleNamespace(meas=kept))]


@pytest.fixture
def faults(monkeypatch):
    """Let the next jobs be these, in turn, a genuine one after them; an exception instead of a job is raised."""
    queue, submit = [], Machine.submit

    def faulty(self, *args):
        fault = queue.pop(0) if queue else "genuine"
        if isinstance(fault, BaseException):
            raise fault
        genuine = submit(self, *args)
        if fault == "genuine":
            return genuine
        fault.job = genuine
        return fault

    monkeypatch.setattr(Machine, "submit", faulty)
    return queue


@pytest.mark.parametrize(
    ("ansatz", "device", "n_qubits"), [("ry_cnot", "fake_torino", 3), ("rx_rz_cnot", "fake_fez", 3)]
)
def test_counts_are_drawn_from_the_noise_model(tmp_path, ansatz, device, n_qubits):
    """Chi squared of all states of two circuits: at most 60 with 14 degrees of freedom, a chance of one in 10**6."""
    shots, angles = 4000, torch.rand(2, *angles_shape(ansatz, 2, n_qubits), dtype=torch.float64) * 6
    counts = sample(angles, ansatz, shots, device, tmp_path)
    expected = shots * noisy_probabilities(angles, ansatz, device.removeprefix("fake_"))
    assert counts.sum(-1).tolist() == [shots, shots]
    assert ((counts - expected).square() / expected).sum() <= 60


def test_leading_dimensions_are_one_job(tmp_path):
    assert measure(tmp_path, ANGLES.view(2, 1, 1, 2), shots=20).shape == (2, 1, 4)
    assert rows(tmp_path) == ["kept"]


def test_same_job_is_measured_once(tmp_path):
    first = measure(tmp_path)
    assert torch.equal(measure(tmp_path), first)
    assert rows(tmp_path) == ["kept"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"shots": 51}, {"angles": ANGLES + 0.1}, {"device": "fake_fez"}])
def test_another_job_is_measured(tmp_path, change):
    measure(tmp_path)
    measure(tmp_path, **change)
    assert rows(tmp_path) == ["kept", "kept"]


def test_seed_repeats_the_draws_in_another_folder(tmp_path):
    assert torch.equal(measure(tmp_path / "a", seed=0), measure(tmp_path / "b", seed=0))


def test_interrupted_run_keeps_finished_jobs(tmp_path, faults):
    first = measure(tmp_path, seed=0)
    faults.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, seed=1)
    assert torch.equal(measure(tmp_path, seed=0), first)
    assert rows(tmp_path) == ["kept", "open"]  # which may have been paid, so it counts until the device is asked
    measure(tmp_path, seed=1)
    assert rows(tmp_path) == ["kept", "kept"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_jobs": 1}, "`max_jobs`=1 would be passed: 1 are used and the next job needs 1"),
        ({"max_shots": 199}, "`max_shots`=199 would be passed: 100 are used and the next job needs 100"),
    ],
)
def test_limit_stops_before_it_is_passed(tmp_path, limits, message):
    measure(tmp_path, **limits)
    with pytest.raises(RuntimeError, match=message):
        measure(tmp_path, seed=1, **limits)
    assert rows(tmp_path) == ["kept"]


def test_limit_does_not_stop_what_is_paid(tmp_path):
    first = measure(tmp_path, max_jobs=1)
    assert torch.equal(measure(tmp_path, max_jobs=1), first)


FAULTS = {
    "away": (lambda: ConnectionError("the service is away"), "fake_torino took no job .the service is away"),
    "failed": (lambda: Job(error=RuntimeError("calibration lost")), "Job d0 on fake_torino failed .calibration lost"),
    "short": (lambda: Job(lost_shots=1), "Job d0 on fake_torino has 49 of 50 shots"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_job_that_fails_once_is_submitted_again(tmp_path, faults, name):
    faults.append(FAULTS[name][0]())
    assert measure(tmp_path).sum() == 100
    assert rows(tmp_path) == [*(["failed"] if name != "away" else []), "kept"]


@pytest.mark.parametrize("name", FAULTS)
def test_job_that_fails_always_is_reported_in_one_sentence(tmp_path, faults, name):
    make, message = FAULTS[name]
    faults += [make(), make()]
    with pytest.raises(JobFailed, match=message):
        measure(tmp_path, retries=1)


def test_retry_does_not_pass_a_limit(tmp_path, faults):
    faults.append(Job(lost_shots=1))
    with pytest.raises(RuntimeError, match="`max_jobs`=1 would be passed"):
        measure(tmp_path, max_jobs=1)


def test_job_without_result_in_time_is_not_submitted_again(tmp_path, faults):
    faults.append(Job(is_done=False))
    with pytest.raises(TimeoutError, match="Job d0 on fake_torino had no result after `timeout`=0 seconds"):
        measure(tmp_path, timeout=0.0)
    assert rows(tmp_path) == ["open"]


class Service:
    """A stand-in for an account with one machine that keeps its jobs, as IBM's service does."""

    def __init__(self):
        self.kept = {}

    def jobs(self, limit, job_tags, backend_name):
        return [self.kept[tag] for tag in job_tags if tag in self.kept][:limit]

    def job(self, job_id):
        return next(job for job in self.kept.values() if job.job_id() == job_id)


@pytest.fixture
def service(monkeypatch):
    """Let "ibm_torino" be the fake device behind an account's service."""
    service, fake = Service(), find_machine("fake_torino", 2)

    class Remote(Machine):
        def submit(self, circuit, values, shots, seed, tag):
            service.kept[tag] = fake.submit(circuit, values, shots, seed, tag)
            return service.kept[tag]

    service.remote = remote = Remote("ibm_torino", fake.backend, fake.mode, fake.line, service)
    monkeypatch.setattr("qpa_hf.measurement.device.sampling.find_machine", lambda name, n_qubits: remote)
    return service


def test_job_that_the_service_has_is_not_submitted_again(tmp_path, service, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("qpa_hf.measurement.device.sampling._wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            measure(tmp_path, device="ibm_torino")
    assert measure(tmp_path, device="ibm_torino", max_jobs=1).sum() == 100
    assert rows(tmp_path) == ["kept"]


class Breaking:
    """Calls a function, once with a broken connection: before it, or after it if its answer is lost."""

    def __init__(self, function, is_answer_lost=False):
        self.function, self.is_answer_lost, self.n_calls = function, is_answer_lost, 0

    def __call__(self, *args, **kwargs):
        self.n_calls += 1
        found = self.function(*args, **kwargs) if self.is_answer_lost or self.n_calls > 1 else None
        if self.n_calls == 1:
            raise ConnectionError("connection reset")
        return found


def broken_download(service, monkeypatch):
    submit = type(service.remote).submit

    def submitted(*args):
        job = submit(*args)
        job.result = Breaking(job.result)
        return job

    monkeypatch.setattr(type(service.remote), "submit", submitted)


def lost_answer(service, monkeypatch):
    breaking = Breaking(type(service.remote).submit, is_answer_lost=True)
    monkeypatch.setattr(type(service.remote), "submit", lambda *args: breaking(*args))


def broken_question(service, monkeypatch):
    service.jobs = Breaking(service.jobs)


@pytest.mark.parametrize("fault", [broken_download, lost_answer, broken_question])
def test_a_broken_connection_pays_for_no_second_job(fault, tmp_path, service, monkeypatch):
    fault(service, monkeypatch)
    assert measure(tmp_path, device="ibm_torino", max_jobs=1).sum() == 100
    assert rows(tmp_path) == ["kept"]


def test_job_that_failed_at_the_service_is_not_found_again(tmp_path, service):
    measure(tmp_path / "once", device="ibm_torino")
    (tag,) = service.kept
    service.kept[tag] = Job(service.kept[tag], lost_shots=1)
    assert measure(tmp_path / "again", device="ibm_torino").sum() == 100
    assert rows(tmp_path / "again") == ["failed", "kept"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"shots": 0}, "`shots`=0 is not allowed. Set it to a whole number of at least 1"),
        ({"device": "torino"}, "`device`='torino' is not known. Choose 'fake_torino', 'fake_fez'"),
        ({"angles": torch.zeros(1, 134)}, "134 qubits does not fit on torino: the device has 133"),
        ({"angles": torch.zeros(2)}, "must have shape"),
    ],
)
def test_bad_input_is_refused_before_anything_is_submitted(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        measure(tmp_path, **kwargs)
    assert list(tmp_path.iterdir()) == []


def test_missing_account_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "none.json")
    )
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_CHANNEL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match="No IBM Quantum account is saved on this computer"):
        measure(tmp_path, device="ibm_torino")
