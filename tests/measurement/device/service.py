"""A stand-in for IBM's service, whose jobs are files: every process finds them there."""

import uuid
from types import SimpleNamespace

import numpy as np
import torch
from qiskit.primitives import BitArray
from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound

from qpa_hf.measurement.device import sample
from qpa_hf.measurement.device.machines import Machine

ANGLES = torch.tensor([[[0.3, 1.1]], [[2.0, -0.4]]])
SHOTS = 50


class Job:
    """A job that has ended; its shots are the same whenever they are fetched."""

    def __init__(self, path):
        self.path = path

    def job_id(self):
        return self.path.name

    def in_final_state(self):
        return True

    def status(self):
        return "DONE"

    def result(self):
        n_circuits, shots, n_qubits = map(int, self.path.read_text().split())
        bits = np.random.default_rng(0).integers(0, 2, (n_circuits, shots, n_qubits)).astype(bool)
        return [SimpleNamespace(data=SimpleNamespace(meas=BitArray.from_bool_array(bits)))]


class Service:
    """An account's jobs in a folder; `tags` says what was paid."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    def jobs(self, limit, job_tags, backend_name):
        return [Job(path) for path in sorted(self.folder.glob(f"{job_tags[0]}.*"))][:limit]

    def job(self, job_id):
        if not (self.folder / job_id).is_file():
            raise RuntimeJobNotFound(f"Job not found: {job_id}")
        return Job(self.folder / job_id)

    def run(self, tag, values, shots):
        path = self.folder / f"{tag}.{uuid.uuid4().hex}"
        path.write_text(f"{len(values)} {shots} {ANGLES.shape[-1]}")
        return Job(path)

    @property
    def tags(self):
        return sorted(path.name.partition(".")[0] for path in self.folder.iterdir())


class Remote(Machine):
    """A machine of the account."""

    def submit(self, circuit, values, shots, seed, tag):
        return self.service.run(tag, values, shots)


def remote(service):
    return Remote("ibm_torino", None, None, (0, 1), service)


def measure(folder, angles=ANGLES, shots=SHOTS, **kwargs):
    return sample(angles, "ry_cnot", shots, "ibm_torino", folder, **{"retry_wait": 0.0} | kwargs)
