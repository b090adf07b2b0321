"""Measured values of circuits, simulated or from a device, with the gradient that an estimator gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpa_hf.circuit.backends import BACKENDS
from qpa_hf.circuit.estimators import ESTIMATORS, Estimator, n_offsets
from qpa_hf.circuit.measurement import sample
from qpa_hf.circuit.noise import noisy_probabilities
from qpa_hf.circuit.randomness import seeded

# Probabilities simulated in one call. On a CPU those of 112 circuits of 7 qubits; more leave a core's cache, and take
# two or three times as long as several calls.
CALL_VALUES = {"cpu": 2**14, "cuda": 2**24}


@dataclass(frozen=True)
class DeviceSettings:
    """A device, and what it may cost; see `qpa_hf.circuit.device.sample`.

    Args:
        name: "fake_torino", "fake_fez", or "ibm_..." of the account that is saved on this computer.
        folder: where every job's counts are kept.
        max_jobs: jobs to submit at most; None for no limit.
        max_shots: shots to submit at most, over all circuits of all jobs; None for no limit.
    """

    name: str
    folder: str
    max_jobs: int | None = None
    max_shots: int | None = None


@dataclass(frozen=True)
class Measurement:
    """How circuits are measured.

    Args:
        ansatz: a key of `ANSATZE`.
        shots: measurements of each circuit; None gives exact probabilities.
        gradient: a key of `ESTIMATORS`.
        backend: a key of `BACKENDS`.
        noise: a device whose noise is simulated, one of `qpa_hf.circuit.noise.DEVICES`; None for an ideal one.
        device: a device that measures; None for simulations.
        seed: with the number of the draw, it decides every shot, every random direction, and beyond 10 qubits, where
            noise is no longer exact, every error.
    """

    ansatz: str = "ry_cnot"
    shots: int | None = None
    gradient: str = "exact"
    backend: str = "exact"
    noise: str | None = None
    device: DeviceSettings | None = None
    seed: int = 0


@torch.library.custom_op("qpa_hf::frequencies", mutates_args=())
def _frequencies(p: Tensor, draw: Tensor, shots: int, seed: int, purpose: str) -> Tensor:
    counts = sample(p, shots, seeded(seed, f"{purpose} {int(draw)}"))
    return counts.to(p.dtype) / shots


@_frequencies.register_fake
def _(p: Tensor, draw: Tensor, shots: int, seed: int, purpose: str) -> Tensor:
    return torch.empty_like(p)


@torch.compiler.disable  # calibrations are read and generators seeded there, which is no graph
def _noisy(angles: Tensor, how: Measurement, noise: str, draw: Tensor, purpose: str) -> Tensor:
    errors = seeded(how.seed, f"errors of {purpose} {int(draw)}")
    return noisy_probabilities(angles, how.ansatz, noise, seed=errors.initial_seed())


def _simulate(angles: Tensor, how: Measurement, draw: Tensor, purpose: str) -> Tensor:
    """Return the probabilities that the shots are drawn from, with a graph where `angles` have one."""
    if how.noise is not None:
        return _noisy(angles, how, how.noise, draw, purpose)
    return BACKENDS[how.backend].probabilities(angles, how.ansatz, None)


@torch.compiler.disable
def _on_device(angles: Tensor, how: Measurement, device: DeviceSettings, draw: Tensor) -> Tensor:
    """Have a device measure all circuits in one job."""
    from qpa_hf.circuit.device import sample as sample_device

    assert how.shots is not None
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        raise RuntimeError("A device is asked by one process, because each would submit its own jobs. Start one.")
    counts = sample_device(
        angles,
        how.ansatz,
        how.shots,
        device.name,
        device.folder,
        seed=int(draw),
        max_jobs=device.max_jobs,
        max_shots=device.max_shots,
    )
    return counts.to(angles) / how.shots


def _measure(angles: Tensor, how: Measurement, draw: Tensor, purpose: str) -> Tensor:
    """Return what is measured, without a graph."""
    if how.device is not None:
        return _on_device(angles.detach(), how, how.device, draw)
    p = _simulate(angles.detach(), how, draw, purpose)
    return p if how.shots is None else _frequencies(p, draw, how.shots, how.seed, purpose)


def _n_together(n_values: int, device: str) -> int:
    """Return how many offsets, each of two times `n_values` probabilities, are simulated in one call."""
    return max(1, CALL_VALUES.get(device, CALL_VALUES["cuda"]) // (2 * n_values))


def _slopes(angles: Tensor, offsets: Tensor, grad: Tensor, how: Measurement, draw: Tensor) -> Tensor:
    """Return by how much (measured values * grad).sum() differs between angles + offset and angles - offset.

    Args:
        angles: of all circuits, shape (n_circuits, ...).
        offsets: shape (n_offsets, n_circuits or 1, ...).
        grad: shape (n_circuits, 2**n_qubits).
        how: the measurement.
        draw: its number.

    Returns:
        Differences, shape (n_offsets, n_circuits).
    """
    n_together = _n_together(grad.numel(), angles.device.type)
    found = []
    for i, some in enumerate(offsets.split(n_together)):
        shifted = torch.stack([angles + some, angles - some])  # (2, some, n_circuits, ...)
        plus, minus = _measure(shifted, how, draw, f"shifted {i}")
        found.append((plus.sub_(minus) * grad).sum(-1))
    return torch.cat(found)


def n_simulated(gradient: str, n_angles: int, n_circuits: int, n_qubits: int, device: str = "cpu") -> int:
    """Return how many circuits are simulated at a time, at the most, for one gradient of `n_circuits` circuits."""
    n_pairs = min(n_offsets(gradient, n_angles), _n_together(n_circuits * 2**n_qubits, device))
    return n_circuits * max(1, 2 * n_pairs)


class _Estimated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, draw: Tensor, how: Measurement) -> Tensor:
        ctx.save_for_backward(angles, draw.clone())  # the next step counts on in place
        ctx.how, ctx.differences = how, None
        if how.device is None or not ctx.needs_input_grad[0]:
            return _measure(angles, how, draw, "shots")
        # A device is asked once in a step, before the gradient is known, for all circuits that it may need.
        offsets = _estimator(how).offsets(angles, draw, how.seed)
        shares = _measure(torch.cat([angles[None], angles + offsets, angles - offsets]), how, draw, "shots")
        plus, minus = shares[1:].chunk(2)
        ctx.differences = plus - minus
        return shares[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        angles, draw = ctx.saved_tensors
        estimator = _estimator(ctx.how)
        offsets = estimator.offsets(angles, draw, ctx.how.seed)
        if ctx.differences is None:
            differences = _slopes(angles, offsets, grad, ctx.how, draw)
        else:
            differences = (ctx.differences * grad).sum(-1)
        return estimator.combine(differences, offsets), None, None


def _estimator(how: Measurement) -> Estimator:
    estimator = ESTIMATORS[how.gradient]
    assert estimator is not None
    return estimator


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, measured: Tensor) -> Tensor:
        return measured.view_as(measured)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def measured(angles: Tensor, how: Measurement, draw: Tensor) -> Tensor:
    """Return what measurements of the circuits give: the shares of the shots, or the probabilities without shots.

    The same angles, seed and draw give the same bits, with gradients or without. In the backward pass the angles'
    gradient is what `how.gradient` names.

    Args:
        angles: shape (n_circuits, ...), as for `probabilities`.
        how: the measurement.
        draw: number of the draw, an int64 tensor; another number gives other shots and errors.

    Returns:
        Shares of the 2**n_qubits basis states, shape (n_circuits, 2**n_qubits), of the angles' dtype.

    Example:
        >>> angles = torch.tensor([[[torch.pi / 2, 0.0]]])  # |00> + |11>
        >>> measured(angles, Measurement(shots=1000), torch.tensor(0)).shape
        torch.Size([1, 4])
    """
    if how.gradient == "none":
        return _measure(angles, how, draw, "shots")
    if how.gradient != "exact":
        return _Estimated.apply(angles, draw, how)
    p = _simulate(angles, how, draw, "shots")
    if how.shots is None:
        return p
    return _StraightThrough.apply(p, _frequencies(p.detach(), draw, how.shots, how.seed, "shots"))
