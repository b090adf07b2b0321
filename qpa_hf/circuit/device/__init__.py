"""Circuits on a device: counts from IBM's machines, or from their simulation here."""

from qpa_hf.circuit.device.machines import FAKE_MACHINES, require_extra
from qpa_hf.circuit.device.sampling import JobFailed, sample

__all__ = ["FAKE_MACHINES", "JobFailed", "require_extra", "sample"]
