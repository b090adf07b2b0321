"""Bias and spread of the angles' estimated gradients, against the exact one of a trained adapter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.runs import Job
from benchmarks.harness.study import Row
from benchmarks.noise.parts import PAPER_SHOTS, Grid
from benchmarks.noise.setting import Setting
from benchmarks.noise.study import Measurements
from benchmarks.quality.fitting import fit
from benchmarks.quality.task import Task
from qpa_hf.generator import Generator
from qpa_hf.measurement import ESTIMATORS
from qpa_hf.plan.budget import budget

SHOTS = (None, *PAPER_SHOTS)
N_DRAWS = 200
N_QUBITS = 7  # the width at which parameter shift is also timed


def cases(task: Task, grid: Grid, quick: bool) -> Iterator[Row]:
    """Yield what is to be measured: one trained adapter each."""
    setting = Setting(grid.widths[0] if quick else N_QUBITS)
    for seed in range(1, grid.n_seeds + 1):
        job = Job(Measurements(task, grid=grid), setting.name, "final", grid.rate, seed, Path())
        of = {"task": task.name, "n_qubits": setting.n_qubits, "seed": seed, "digest": job.key[-1]}
        yield of | {"n_draws": 5 if quick else N_DRAWS}


def measure(task: Task, grid: Grid, case: Row) -> list[Row]:
    """Train an adapter exactly, then estimate the gradient of its angles again and again.

    What stands behind the generated vector is made linear: the task's own gradient with respect to the vector, on one
    batch of training data. So what differs between the estimators is what the circuits' measurement makes of it.
    """
    setting = Setting(case["n_qubits"])
    fitted = fit(task, setting.config(task.targets, case["seed"]), grid.rate, case["seed"], "cpu")
    trained: Any = fitted.model
    generator = trained.base_model.lora_qpa["default"]
    direction = _direction(trained, generator, next(iter(task.batches(case["seed"]))))
    exact = _gradient(generator, direction)
    rows = []
    for shots in SHOTS:
        for gradient in (name for name in ESTIMATORS if name != "none"):
            measured = _measured_copy(generator, shots, gradient)
            estimates = torch.stack([_next_gradient(measured, direction) for _ in range(case["n_draws"])])
            n_circuits = budget(measured.spec, gradient).circuits_per_step
            row = {"shots": shots, "gradient": gradient, "circuits": n_circuits}
            rows.append(case | row | compare(estimates, exact))
    return rows


def _direction(model: Any, generator: Generator, batch: dict[str, Tensor]) -> Tensor:
    """Return the gradient of the loss with respect to the generated vector, (n_values,)."""
    kept: list[Tensor] = []

    def keep(module: Any, inputs: Any, pieces: tuple[Tensor, ...]) -> None:
        for piece in pieces:
            piece.retain_grad()
            kept.append(piece)

    hook = generator.register_forward_hook(keep)
    generator.train()
    model(**batch).loss.backward()
    hook.remove()
    gradients = [torch.zeros_like(piece) if piece.grad is None else piece.grad for piece in kept]
    return torch.cat([gradient.flatten() for gradient in gradients])


def _measured_copy(generator: Generator, shots: str | None, gradient: str) -> Generator:
    """Return a generator with the same trained numbers, measured otherwise."""
    copy = Generator(replace(generator.spec, shots=shots, gradient=gradient))
    copy.load_state_dict({name: p.detach() for name, p in generator.named_parameters()}, strict=False)
    return copy


def _gradient(generator: Generator, direction: Tensor) -> Tensor:
    (values,) = generator()
    return torch.autograd.grad(values @ direction, generator.angles)[0].flatten().double()


def _next_gradient(generator: Generator, direction: Tensor) -> Tensor:
    generator.draw_anew()
    return _gradient(generator, direction)


def compare(estimates: Tensor, exact: Tensor) -> dict[str, float]:
    """Return bias, spread and error of estimates, (n_draws, n_angles), as shares of the exact gradient's length.

    - "bias": length of the mean's distance from the exact gradient, less what so many draws leave of the spread.
    - "resolution": that rest; a bias below it is not told from none.
    - "spread": root of the summed variances of one estimate.
    - "error": root mean square distance of one estimate.
    - "cosine": mean cosine of the angle between them.
    """
    length = exact.norm()
    mean = estimates.mean(0)
    spread = estimates.var(0).sum() / length**2
    rest = spread / len(estimates)
    bias = (mean - exact).square().sum() / length**2 - rest
    error = (estimates - exact).square().sum(1).mean() / length**2
    cosine = torch.nn.functional.cosine_similarity(estimates, exact.expand_as(estimates)).mean()
    found = {"bias": bias.clamp_min(0), "resolution": rest, "spread": spread, "error": error}
    return {name: math.sqrt(value) for name, value in found.items()} | {"cosine": cosine.item()}
