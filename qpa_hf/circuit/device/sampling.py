"""`sample`: counts from a device through SamplerV2, all circuits in one job, no job paid twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from torch import Tensor

from qpa_hf.circuit.device.circuits import count_bits, device_circuit
from qpa_hf.circuit.device.ledger import Ledger, job_key
from qpa_hf.circuit.device.machines import Machine, find_machine
from qpa_hf.circuit.probabilities import flat_angles
from qpa_hf.whole_number import whole_number

FIRST_POLL, LONGEST_POLL = 0.01, 10.0  # seconds between two questions whether a job is done
UNUSABLE = ("ERROR", "FAILED", "CANCELLED")  # states of a job that will never have a result


class JobFailed(RuntimeError):
    """A job that was refused, failed, or came back short; or a service that could not be asked."""


class JobLost(JobFailed):
    """A job that will never have the counts: another one must be submitted, under another tag."""


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip("'\"").rstrip(".")


def _wait(job: Any, timeout: float, name: str) -> Any:
    """Return a job's result.

    Raises:
        TimeoutError: if there is none in time; the job goes on.
        JobLost: if it failed.
        JobFailed: if its result could not be fetched; the job still has it.
    """
    start = time.monotonic()
    pause = FIRST_POLL
    while not job.in_final_state():
        if time.monotonic() - start > timeout:
            raise TimeoutError(
                f"Job {job.job_id()} on {name} had no result after `timeout`={timeout:g} seconds. Run again to go on: "
                "a job that IBM has is waited for, not submitted again."
            )
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_POLL)
    try:
        return job.result()
    except Exception as error:  # Aer, IBM's service and the network each raise their own
        if _state(job) in UNUSABLE:
            raise JobLost(f"Job {job.job_id()} on {name} failed ({_reason(error)}).") from error
        raise JobFailed(f"The result of job {job.job_id()} on {name} did not arrive ({_reason(error)}).") from error


def _state(job: Any) -> str:
    try:
        status = job.status()
    except Exception:  # the network again: the job is not known to have failed
        return ""
    return str(getattr(status, "name", status))


def _ask(machine: Machine, question: Callable[..., Any], *args: Any) -> Any:
    """Call a device's service; what it raises becomes a JobFailed, unless the job itself is wrong."""
    try:
        return question(*args)
    except (TypeError, ValueError):  # no use in another try
        raise
    except Exception as error:  # IBM's service and the network each raise their own
        raise JobFailed(f"{machine.name} took no job ({_reason(error)}).") from error


@dataclass(frozen=True)
class _Job:
    """One job, as `sample` was asked for it: angles flattened to (C, S * N)."""

    key: str
    circuit: Any
    angles: Tensor
    shots: int
    seed: int

    def run(self, machine: Machine, ledger: Ledger, limits: tuple[int | None, int | None], timeout: float) -> Tensor:
        """Find the job on the device or submit it, and return its counts, (C, 2**N)."""
        tag = f"qpa-{self.key[:24]}-{ledger.n_failures(self.key)}"
        all_shots = len(self.angles) * self.shots
        try:
            job = _ask(machine, machine.find, tag)
            if job is None:
                ledger.check_limits(all_shots, *limits)
                ledger.submitted(self.key, all_shots)
                values = self.angles.detach().double().cpu().numpy()
                job = _ask(machine, machine.submit, self.circuit, values, self.shots, self.seed, tag)
            bits = _wait(job, timeout, machine.name)[0].data.meas
            if bits.num_shots < self.shots:
                raise JobLost(f"Job {job.job_id()} on {machine.name} has {bits.num_shots} of {self.shots} shots.")
        except JobLost as error:
            ledger.failed(self.key, str(error))
            raise
        return count_bits(bits)


def sample(
    angles: Tensor,
    ansatz: str,
    shots: int,
    device: str,
    folder: str | Path,
    seed: int = 0,
    max_jobs: int | None = None,
    max_shots: int | None = None,
    timeout: float = 3600.0,
    retries: int = 2,
    retry_wait: float = 5.0,
) -> Tensor:
    """Return how often a device measured each basis state; all circuits are one job of IBM's SamplerV2.

    The counts are kept in `folder`, by circuits, shots, device and seed: asked again, they are read and not measured.
    A job that a real device still has from an interrupted run is found there by its tag and waited for.

    Args:
        angles: float32 or float64, radians, shape (..., depth, n_qubits), or (..., depth, 2, n_qubits) for the
            two-rotation ansätze; leading dimensions are independent circuits.
        ansatz: a key of `ANSATZE`.
        shots: of each circuit.
        device: "fake_torino" or "fake_fez", which Aer simulates with their calibration, or "ibm_..." of the account
            that is saved on this computer.
        folder: of this run's results; the limits count what was submitted with it.
        seed: of a fake device's draws; on a real one, a new seed is a new measurement.
        max_jobs: jobs to submit at most, failed ones included.
        max_shots: shots to submit at most, over all circuits of all jobs.
        timeout: seconds to wait for a job.
        retries: how often a job that fails is submitted again; each counts for the limits.
        retry_wait: seconds before the first of them, doubled for each further one.

    Returns:
        Counts, shape (..., 2**n_qubits), int64, each row summing to `shots`. Qubit 0 is the most significant bit.

    Raises:
        ImportError: if Qiskit, Aer or qiskit-ibm-runtime is missing.
        JobFailed: if the job failed as often as is allowed.
        RuntimeError: if a limit would be passed (nothing is submitted), or there is no account.
        TimeoutError: if a job has no result in time.
        ValueError: for an unknown device or ansatz, a circuit wider than the device, no shots, or wrong angles.
    """
    layers, batch = flat_angles(angles, ansatz)
    shots = whole_number("shots", shots)
    _, depth, _, n_qubits = layers.shape
    flat = layers.flatten(1)  # (C, S * N)
    ledger, key = Ledger(Path(folder)), job_key(angles, ansatz, shots, device, seed)
    counts = ledger.load(key)
    if counts is None:
        machine = find_machine(device, n_qubits)
        circuit = device_circuit(ansatz, depth, n_qubits, machine.backend, machine.line)
        job = _Job(key, circuit, flat, shots, seed)
        attempts = Retrying(
            stop=stop_after_attempt(retries + 1),
            wait=wait_exponential(multiplier=retry_wait),
            retry=retry_if_exception_type(JobFailed),
            reraise=True,
        )
        counts = attempts(job.run, machine, ledger, (max_jobs, max_shots), timeout)
        ledger.save(key, counts)
    return counts.reshape(*batch, -1)
