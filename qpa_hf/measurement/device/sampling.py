"""`sample`: counts from a device through SamplerV2, in as few jobs as IBM's limits allow, no job paid twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from torch import Tensor

from qpa_hf.circuit.probabilities import flat_angles
from qpa_hf.measurement.device.circuits import count_bits, device_circuit
from qpa_hf.measurement.device.faults import JobFailed, JobLost, JobRefused, ask, is_refusal, reason
from qpa_hf.measurement.device.job import JobSize, job_key
from qpa_hf.measurement.device.ledger import Ledger
from qpa_hf.measurement.device.limits import check_device_shots, circuits_per_job
from qpa_hf.measurement.device.machines import Machine, find_machine
from qpa_hf.reproducible import seeded

if TYPE_CHECKING:
    from jaxtyping import Float, Int

FIRST_POLL, LONGEST_POLL = 0.01, 10.0  # seconds between two questions whether a job is done
UNUSABLE = ("ERROR", "FAILED", "CANCELLED")  # states of a job that will never have a result


def _wait(job: Any, timeout: float, name: str) -> Any:
    """Return a job's result.

    Raises:
        TimeoutError: if there is none in time; the job goes on.
        JobLost: if it failed.
        JobFailed: if its result could not be fetched; the job still has it.
    """
    start = time.monotonic()
    pause = FIRST_POLL
    while not _is_final(job, name):
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
            raise JobLost(f"Job {job.job_id()} on {name} failed ({reason(error)}).") from error
        raise JobFailed(f"The result of job {job.job_id()} on {name} did not arrive ({reason(error)}).") from error


def _is_final(job: Any, name: str) -> bool:
    try:
        return job.in_final_state()
    except Exception as error:
        if is_refusal(error):
            raise JobRefused(f"Job {job.job_id()} on {name} cannot be asked for ({reason(error)}).") from error
        return False  # the network: it is asked again


def _state(job: Any) -> str:
    try:
        status = job.status()
    except Exception:  # the network again: the job is not known to have failed
        return ""
    return str(getattr(status, "name", status))


def _counted(result: Any, job: Any, size: JobSize, name: str) -> Tensor:
    """Return the counts of a result, (n_circuits, n_states).

    Raises:
        JobLost: if it has fewer shots, or other circuits, than were asked for.
        JobFailed: if it is none of a sampler.
    """
    try:
        bits = result[0].data.meas
        shots = bits.num_shots
        shape = (bits.shape[0], 2**bits.num_bits)
    except (AttributeError, IndexError, TypeError) as error:
        raise JobFailed(f"The result of job {job.job_id()} on {name} is not complete ({reason(error)}).") from error
    if shots != size.shots:
        raise JobLost(f"Job {job.job_id()} on {name} has {shots} of {size.shots} shots.")
    if shape != (size.n_circuits, size.n_states):
        raise JobLost(
            f"Job {job.job_id()} on {name} has {shape[0]} circuits of {shape[1]} states, which are not ours."
        )
    return count_bits(bits)


@dataclass(frozen=True)
class _Job:
    """One job: what `sample` was asked for, or as much of it as fits into one; angles flattened to (C, S * N)."""

    key: str
    angles: Tensor
    size: JobSize
    seed: int

    def run(
        self,
        machine: Machine,
        circuit: Any,
        ledger: Ledger,
        limits: tuple[int | None, int | None],
        ahead: list[JobSize],
        timeout: float,
    ) -> Tensor:
        """Return the job's counts: from the ledger, from the device that has the job, or from a new job."""
        # Looking for a job and submitting it is one step under the lock: two processes that ask for the same circuits
        # at once share one job.
        with ledger.locked() as lock:
            counts = ledger.counts(self.key, self.size)  # another process may have had them meanwhile
            if counts is not None:
                return counts
            attempt = ledger.n_failures(self.key)
            tag = f"qpa-{self.key[:24]}-{attempt}"
            job_id = ledger.job_id(self.key)
            job = ask(f"{machine.name} could not be asked for a job", machine.find, tag, job_id)
            if job is None:
                if job_id is not None and machine.service is not None:
                    raise RuntimeError(
                        f"{machine.name} no longer has job {job_id}, whose counts in {ledger.path} are missing or "
                        "damaged. Put back a copy of the file, or name another `device_folder` to pay for it again."
                    )
                ledger.submit(self.key, self.size, *limits, ahead)
                job = self._submit(machine, circuit, ledger, tag)
            if machine.service is not None:
                lock.release()  # the service keeps the job, and another process finds it there
            try:
                counts = _counted(_wait(job, timeout, machine.name), job, self.size, machine.name)
            except JobLost as error:
                ledger.failed(self.key, attempt, self.size, str(error))
                raise
            ledger.save(self.key, attempt, self.size, counts)
        return counts

    def _submit(self, machine: Machine, circuit: Any, ledger: Ledger, tag: str) -> Any:
        values = self.angles.detach().double().cpu().numpy()
        shots = self.size.shots
        try:
            job = ask(f"{machine.name} took no job", machine.submit, circuit, values, shots, self.seed, tag)
        except JobRefused:
            ledger.refused(self.key)
            raise
        ledger.submitted(self.key, job.job_id())
        return job


def _jobs(angles: Tensor, n_states: int, ansatz: str, shots: int, device: str, seed: int) -> Iterator[_Job]:
    """Yield the jobs that measure circuits of these angles, (C, S * N)."""
    for i, part in enumerate(angles.split(circuits_per_job(shots))):
        # With one seed for all, circuits of several jobs would have the same draws.
        own = seed if i == 0 else seeded(seed, f"job {i}").initial_seed() // 2
        yield _Job(job_key(part, ansatz, shots, device, own), part, JobSize(len(part), n_states, shots), own)


def sample(
    angles: Float[Tensor, "*batch n_qubits"],
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
) -> Int[Tensor, "*batch n_states"]:
    """Return how often a device measured each basis state; all circuits are one job of IBM's SamplerV2.

    Beyond 10 million shots of all circuits together, which is IBM's limit, they are as many jobs as it takes. The
    counts are kept in `folder`, by circuits, shots, device and seed: asked again, they are read and not measured.
    A job that a real device still has, from an interrupted run or for another process, is found there by its tag and
    waited for; so is one whose counts in `folder` are damaged.

    Args:
        angles: the rotation angles in radians, float32 or float64, shape (..., depth, n_qubits), or (..., depth,
            n_rotations, n_qubits) for an ansatz of several rotations; leading dimensions are independent circuits.
        ansatz: the gate pattern, a key of `ANSATZE`.
        shots: the number of shots of each circuit, at most 100,000.
        device: the device's name: "fake_torino" or "fake_fez", which Aer simulates with their calibration, or
            "ibm_..." of the account that is saved on this computer.
        folder: the folder of this run's results; the limits count what was submitted with it.
        seed: the seed of a fake device's draws; on a real one, a new seed is a new measurement.
        max_jobs: the largest number of jobs to submit, failed ones included.
        max_shots: the largest number of shots to submit, over all circuits of all jobs.
        timeout: the seconds to wait for a job.
        retries: how often a job that fails is submitted again, and the service asked again; each job counts towards
            the limits, except those that the service has refused.
        retry_wait: the seconds before the first retry, doubled for each further one.

    Returns:
        Counts, shape (..., 2**n_qubits), int64, each row summing to `shots`. Qubit 0 is the most significant bit.

    Raises:
        ImportError: if Qiskit, Aer or qiskit-ibm-runtime is missing.
        JobFailed: if the job failed, or the service was away, as often as is allowed.
        JobRefused: if the service takes no such job, or the account is missing, damaged or wrong.
        RuntimeError: if a limit would be passed (nothing is submitted), or the folder cannot be read or written.
        TimeoutError: if a job has no result in time.
        ValueError: for an unknown device or ansatz, a circuit wider than the device, no shots, or wrong angles.
    """
    layers, batch = flat_angles(angles, ansatz)
    shots = check_device_shots(shots)
    _, depth, _, n_qubits = layers.shape
    ledger = Ledger(Path(folder))
    attempts = _attempts(retries, retry_wait)
    jobs = list(_jobs(layers.flatten(1), 2**n_qubits, ansatz, shots, device, seed))
    found = {job.key: ledger.counts(job.key, job.size) for job in jobs}
    missing = [job for job in jobs if found[job.key] is None]
    for i, job in enumerate(missing, 1):
        machine = attempts(find_machine, device, n_qubits)
        circuit = device_circuit(ansatz, depth, n_qubits, machine.backend, machine.line)
        ahead = [later.size for later in missing[i:] if not ledger.is_submitted(later.key)]
        found[job.key] = attempts(job.run, machine, circuit, ledger, (max_jobs, max_shots), ahead, timeout)
    return torch.cat([counts for counts in found.values() if counts is not None]).reshape(*batch, -1)


def _attempts(retries: int, retry_wait: float) -> Retrying:
    return Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait_exponential(multiplier=retry_wait),
        retry=retry_if_exception_type(JobFailed),
        reraise=True,
    )
