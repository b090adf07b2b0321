"""What measuring costs: circuits, shots and jobs for each way to estimate the angles' gradient, a step and a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qpa_hf.generator import GeneratorSpec
from qpa_hf.measurement import ESTIMATORS, circuits_per_gradient
from qpa_hf.measurement.device import jobs_needed


@dataclass(frozen=True)
class Budget:
    """What training measures with one estimator of the angles' gradient.

    Args:
        gradient: a key of `ESTIMATORS`; with "none" a step is one evaluation of the loss by `optimize_angles`.
        circuits_per_step: measured in one step, the unshifted ones and those of the gradient's estimator.
        shots_per_step: of all of them; 0 for exact probabilities.
        jobs_per_step: submitted to a device, as many as its limits ask for; one more each time an adapter is evaluated
            or saved after training.
        n_steps: of the run.
        circuits_per_run: those of all steps.
        shots_per_run: likewise.
        jobs_per_run: likewise.
    """

    gradient: str
    circuits_per_step: int
    shots_per_step: int
    jobs_per_step: int
    n_steps: int
    circuits_per_run: int
    shots_per_run: int
    jobs_per_run: int


def budget(spec: GeneratorSpec, gradient: str, n_steps: int = 1) -> Budget:
    """Return what measuring costs with an estimator, the spec's own or another.

    Args:
        spec: the generator.
        gradient: a key of `ESTIMATORS`.
        n_steps: of the run.

    Example:
        >>> from qpa_hf import QPAConfig
        >>> budget(QPAConfig.paper(2048, shots="20x").generator_spec(204_100), "parameter_shift", 1000).shots_per_run
        289280000
    """
    step = (0, 0, 0)
    if spec.has_circuit:
        estimated = gradient if spec.train_circuit else "none"
        n_circuits = spec.n_circuits * circuits_per_gradient(estimated, math.prod(spec.angles_shape[1:]))
        shots = spec.n_shots or 0
        step = (n_circuits, n_circuits * shots, jobs_needed(n_circuits, shots) if spec.is_on_device else 0)
    return Budget(gradient, *step, n_steps, *(n_steps * number for number in step))


def budgets(spec: GeneratorSpec, n_steps: int) -> list[Budget]:
    """Return what measuring costs with each estimator that is possible; a device has no exact gradient."""
    return [budget(spec, name, n_steps) for name in ESTIMATORS if not (spec.is_on_device and name == "exact")]
