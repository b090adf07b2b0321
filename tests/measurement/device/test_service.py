"""What IBM's service and its client raise: refusals, accounts that are wrong, a network that is away.

The errors are the client's own, raised as it raises them.
"""

import json
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest

pytest.importorskip("qiskit_ibm_runtime", reason="qiskit-ibm-runtime is not installed: pip install 'qpa-hf[noise]'")

import requests
from ibm_cloud_sdk_core import ApiException
from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit_ibm_runtime.accounts.exceptions import InvalidAccountError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import IBMInputValueError, IBMNotAuthorizedError, IBMRuntimeError
from service import SHOTS, Remote, measure, remote

from qpa_hf.measurement.device import JobFailed, JobRefused
from qpa_hf.measurement.device.ledger import Ledger
from qpa_hf.measurement.device.machines import find_machine


def answered(status):
    """Raise as the client's session does for an answer of HTTP."""
    response = SimpleNamespace(status_code=status)
    try:
        raise requests.HTTPError(f"{status} Error for url: https://quantum.cloud.ibm.com", response=response)
    except requests.RequestException as error:
        if status == 401:
            raise IBMNotAuthorizedError(str(error)) from error
        raise RequestsApiError(str(error), status) from error


def run_answered(status):
    """Raise as `QiskitRuntimeService._run` does for an answer of HTTP."""
    try:
        answered(status)
    except RequestsApiError as error:
        raise IBMRuntimeError(f"Failed to run program: {error}") from None


def away():
    """Raise as the client's session does without a network."""
    try:
        raise requests.ConnectionError("Failed to resolve 'quantum.cloud.ibm.com'")
    except requests.RequestException as error:
        raise RequestsApiError(str(error)) from error


def instances(cause):
    """Raise as the client does when it lists the account's instances, whatever went wrong."""
    try:
        raise cause
    except Exception as error:
        raise InvalidAccountError(
            "Unable to retrieve instances. Please check that you are using a valid API token."
        ) from error


def wrong_instance():
    raise IBMInputValueError("The given API token is associated with an account without access to the instance.")


def undecodable():
    raise requests.JSONDecodeError("Expecting value", "<html>", 0)


SUBMISSION = {  # what submitting raises, and whether it is final
    "400": (lambda: run_answered(400), True),
    "401": (lambda: run_answered(401), True),
    "403": (lambda: run_answered(403), True),
    "404": (lambda: run_answered(404), True),
    "422": (lambda: run_answered(422), True),
    "a bad value": (wrong_instance, True),
    "408": (lambda: run_answered(408), False),
    "429": (lambda: run_answered(429), False),
    "500": (lambda: run_answered(500), False),
    "503": (lambda: run_answered(503), False),
    "no network": (away, False),
    "no JSON": (undecodable, False),
}


@pytest.mark.parametrize("name", SUBMISSION)
def test_a_refusal_is_final_and_costs_nothing(name, tmp_path, service, monkeypatch):
    fail, is_final = SUBMISSION[name]
    asked = []

    def submit(self, *args):
        asked.append(args)
        fail()

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "submit", submit)
        with pytest.raises(JobRefused if is_final else JobFailed, match="^ibm_torino took no job") as error:
            measure(tmp_path / "jobs", retries=2)
    assert "\n" not in str(error.value)
    assert len(asked) == (1 if is_final else 3)
    assert Ledger(tmp_path / "jobs").n_jobs == (0 if is_final else 1)
    assert measure(tmp_path / "jobs", max_jobs=1).sum() == 2 * SHOTS
    assert len(service.tags) == 1


def test_a_refusal_keeps_what_is_paid_already(tmp_path, service, monkeypatch):
    measure(tmp_path / "jobs")
    monkeypatch.setattr(Remote, "submit", lambda *args: run_answered(403))
    with pytest.raises(JobRefused):
        measure(tmp_path / "jobs", seed=1)
    assert Ledger(tmp_path / "jobs").n_jobs == Ledger(tmp_path / "jobs").n_kept == 1


def test_a_network_that_is_away_while_a_job_runs_is_waited_for(tmp_path, service, monkeypatch):
    answers = iter([False, "away", "away", True])

    def in_final_state(self):
        answer = next(answers)
        return away() if answer == "away" else answer

    monkeypatch.setattr("service.Job.in_final_state", in_final_state)
    assert measure(tmp_path / "jobs", retries=0).sum() == 2 * SHOTS
    assert len(service.tags) == 1


@pytest.mark.parametrize("result", [None, [], [SimpleNamespace(data=SimpleNamespace())]])
def test_a_result_that_is_not_whole_is_said(result, tmp_path, service, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("service.Job.result", lambda self: result)
        with pytest.raises(JobFailed, match="The result of job .* on ibm_torino is not complete"):
            measure(tmp_path / "jobs", retries=1)
    assert measure(tmp_path / "jobs", max_jobs=1).sum() == 2 * SHOTS
    assert len(service.tags) == 1


@pytest.fixture
def client(monkeypatch, tmp_path):
    """Let the genuine client find its accounts in a file of the test, which this function writes, and no network."""
    path = tmp_path / "qiskit-ibm.json"
    monkeypatch.setattr("qiskit_ibm_runtime.accounts.management._DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(path))
    for name in ("TOKEN", "CHANNEL", "URL", "INSTANCE"):
        monkeypatch.delenv(f"QISKIT_IBM_{name}", raising=False)
    find_machine.cache_clear()
    return path


def account(**settings):
    return json.dumps(
        {"default": {"channel": "ibm_quantum_platform", "token": "t", "is_default_account": True} | settings}
    )


FILES = {
    "missing": (None, "No IBM Quantum account is saved on this computer"),
    "empty": ("", "The file of IBM Quantum accounts is damaged or cannot be read .JSONDecodeError"),
    "torn": (account()[:20], "The file of IBM Quantum accounts is damaged or cannot be read .JSONDecodeError"),
    "a list": ("[1]", "The file of IBM Quantum accounts is damaged or cannot be read"),
    "no dictionary": ('{"default": 5}', "The file of IBM Quantum accounts is damaged or cannot be read"),
    "not UTF-8": (b"\xff\xfe", "The file of IBM Quantum accounts is damaged or cannot be read .UnicodeDecodeError"),
    "sunset": (account(channel="ibm_quantum"), "is of the channel 'ibm_quantum', which IBM has shut down"),
    "another channel": (account(channel="else"), "IBM does not take the account .*Invalid `channel` value"),
    "no token": (account(token=""), "IBM does not take the account .*Invalid `token` value"),
}


@pytest.mark.parametrize("name", FILES)
def test_an_account_that_cannot_be_used_is_one_sentence(name, client, tmp_path):
    content, message = FILES[name]
    if content is not None:
        client.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(JobRefused, match=message) as error:
        measure(tmp_path / "jobs")
    assert "\n" not in str(error.value)
    assert "Save yours with `QiskitRuntimeService.save_account" in str(error.value)
    assert not (tmp_path / "jobs").exists()


CONNECTION = {  # what the client raises when it connects, the error, and how often it is asked with two retries
    "a wrong token": (
        lambda: instances(ApiException(400, message="Provided API key could not be found")),
        JobRefused,
        1,
    ),
    "no rights": (lambda: instances(ApiException(403, message="Forbidden")), JobRefused, 1),
    "unauthorized": (lambda: answered(401), JobRefused, 1),
    "another's instance": (wrong_instance, JobRefused, 1),
    "no network": (away, JobFailed, 3),
    "no network for the instances": (lambda: instances(requests.ConnectionError("no route")), JobFailed, 3),
    "an ailing service": (lambda: instances(ApiException(503, message="Unavailable")), JobFailed, 3),
}


@pytest.mark.parametrize("name", CONNECTION)
def test_what_connecting_raises_is_one_sentence(name, client, tmp_path, monkeypatch):
    fail, kind, n_asked = CONNECTION[name]
    asked = []

    def connect(*args, **kwargs):
        asked.append(args)
        fail()

    monkeypatch.setattr("qiskit_ibm_runtime.QiskitRuntimeService", connect)
    with pytest.raises(kind, match="^IBM") as error:
        measure(tmp_path / "jobs", retries=2)
    assert "\n" not in str(error.value)
    assert len(asked) == n_asked
    assert not (tmp_path / "jobs").exists()


class Account:
    """A stand-in for the client's service: its devices, and what it raises when it is asked for one."""

    def __init__(self, names, fail=None):
        self.names, self.fail = names, fail

    def backend(self, name):
        if self.fail is not None:
            self.fail()
        raise QiskitBackendNotFoundError("No backend matches the criteria.")

    def backends(self):
        return [SimpleNamespace(name=name) for name in self.names]


DEVICES = {
    "another": (Account(["ibm_fez"]), ValueError, "`device`='ibm_torino' is not in your account, which has 'ibm_fez'"),
    "none": (
        Account([]),
        JobFailed,
        "IBM's service shows no devices in your account, so ibm_torino is not among them",
    ),
    "no network": (Account([], away), JobFailed, "ibm_torino could not be looked for"),
    "no rights": (Account([], lambda: answered(403)), JobRefused, "ibm_torino could not be looked for .403 Error"),
}


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_that_is_not_there_is_one_sentence(name, client, tmp_path, monkeypatch):
    service, kind, message = DEVICES[name]
    monkeypatch.setattr("qiskit_ibm_runtime.QiskitRuntimeService", lambda: service)
    with pytest.raises(kind, match=message) as error:
        measure(tmp_path / "jobs")
    assert "\n" not in str(error.value)


def test_a_network_that_comes_back_while_connecting_is_no_failure(client, tmp_path, service, monkeypatch):
    faults = [away]

    def find(name, n_qubits):
        if faults:
            from qpa_hf.measurement.device.faults import ask

            ask("IBM's service could not be reached", faults.pop())
        return remote(service)

    monkeypatch.setattr("qpa_hf.measurement.device.sampling.find_machine", find)
    assert measure(tmp_path / "jobs", retries=1).sum() == 2 * SHOTS
    with closing(sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite")) as file:
        assert file.execute("SELECT n_circuits, n_states, shots FROM jobs").fetchall() == [(2, 4, SHOTS)]
