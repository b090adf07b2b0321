"""Circuits as they are measured: shots, noise and devices, with the gradients that these allow."""

from qpa_hf.measurement.backends import BACKENDS
from qpa_hf.measurement.estimators import ESTIMATORS, circuits_per_gradient
from qpa_hf.measurement.measure import measure, n_simulated
from qpa_hf.measurement.settings import DeviceSettings, Measurement
from qpa_hf.measurement.shots import check_shots, n_shots

__all__ = [
    "BACKENDS",
    "ESTIMATORS",
    "DeviceSettings",
    "Measurement",
    "check_shots",
    "circuits_per_gradient",
    "measure",
    "n_shots",
    "n_simulated",
]
