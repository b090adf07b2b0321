"""Circuits on a device: counts from IBM's machines, or from their simulation here."""

from qpa_hf.measurement.device.aer import aer_probabilities
from qpa_hf.measurement.device.faults import JobFailed, JobRefused
from qpa_hf.measurement.device.limits import check_device_shots, jobs_needed
from qpa_hf.measurement.device.machines import FAKE_MACHINES, require_extra
from qpa_hf.measurement.device.sampling import sample

__all__ = [
    "FAKE_MACHINES",
    "JobFailed",
    "JobRefused",
    "aer_probabilities",
    "check_device_shots",
    "jobs_needed",
    "require_extra",
    "sample",
]
