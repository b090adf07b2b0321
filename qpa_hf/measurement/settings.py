"""How circuits are measured: the settings of a measurement, and those of a device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceSettings:
    """A device, and what it may cost; see `qpa_hf.measurement.device.sample`.

    Args:
        name: the device's name: "fake_torino", "fake_fez", or "ibm_..." of the account that is saved on this computer.
        folder: the folder in which every job's counts are kept.
        max_jobs: the largest number of jobs to submit; None for no limit.
        max_shots: the largest number of shots to submit, over all circuits of all jobs; None for no limit.
    """

    name: str
    folder: str
    max_jobs: int | None = None
    max_shots: int | None = None


@dataclass(frozen=True)
class Measurement:
    """How circuits are measured.

    Args:
        ansatz: the gate pattern, a key of `ANSATZE`.
        shots: the number of measurements of each circuit; None gives exact probabilities.
        gradient: the estimator of the gradient, a key of `ESTIMATORS`.
        backend: the source of the probabilities, a key of `BACKENDS`.
        noise: the device whose noise is simulated, one of `qpa_hf.measurement.noise.DEVICES`; None for an ideal one.
        device: the device that measures; None for simulations.
        seed: the seed, which with the number of the draw decides every shot, every random direction, and beyond 10
            qubits, where noise is no longer exact, every error.
    """

    ansatz: str = "ry_cnot"
    shots: int | None = None
    gradient: str = "exact"
    backend: str = "exact"
    noise: str | None = None
    device: DeviceSettings | None = None
    seed: int = 0
