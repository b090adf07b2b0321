"""Measured values of circuits, and the ways to estimate how they change with the angles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpa_hf.circuit.backends import BACKENDS
from qpa_hf.circuit.measurement import sample
from qpa_hf.circuit.noise import noisy_probabilities
from qpa_hf.circuit.randomness import seeded

SPSA_DIRECTIONS = 8  # random directions whose slopes are averaged
SPSA_STEP = 0.1  # radians, of every angle
# Probabilities simulated in one call. On a CPU those of 112 circuits of 7 qubits; more leave a core's cache, and take
# two or three times as long as several calls.
CALL_VALUES = {"cpu": 2**14, "cuda": 2**24}


@dataclass(frozen=True)
class Measurement:
    """How circuits are measured.

    Args:
        ansatz: a key of `ANSATZE`.
        shots: measurements of each circuit; None gives exact probabilities.
        gradient: a key of `ESTIMATORS`.
        backend: a key of `BACKENDS`.
        noise: a device whose noise is simulated, one of `qpa_hf.circuit.noise.DEVICES`; None for an ideal one.
        seed: with the number of the draw, it decides every shot and every random direction.
    """

    ansatz: str = "ry_cnot"
    shots: int | None = None
    gradient: str = "exact"
    backend: str = "exact"
    noise: str | None = None
    seed: int = 0


# torch.compile sees a draw as one operation: a generator's state has no place in a traced graph.
@torch.library.custom_op("qpa_hf::frequencies", mutates_args=())
def _frequencies(p: Tensor, draw: Tensor, shots: int, seed: int, purpose: str) -> Tensor:
    counts = sample(p, shots, seeded(seed, f"{purpose} {int(draw)}"))
    return counts.to(p.dtype) / shots


@_frequencies.register_fake
def _(p: Tensor, draw: Tensor, shots: int, seed: int, purpose: str) -> Tensor:
    return torch.empty_like(p)


@torch.library.custom_op("qpa_hf::signs", mutates_args=())
def _signs(angles: Tensor, draw: Tensor, seed: int) -> Tensor:
    """Draw random directions, shape (SPSA_DIRECTIONS, *angles.shape), of -1 and +1."""
    rng = seeded(seed, f"directions {int(draw)}")
    return torch.randint(2, (SPSA_DIRECTIONS, *angles.shape), generator=rng).to(angles) * 2 - 1


@_signs.register_fake
def _(angles: Tensor, draw: Tensor, seed: int) -> Tensor:
    return angles.new_empty(SPSA_DIRECTIONS, *angles.shape)


def _simulate(angles: Tensor, how: Measurement) -> Tensor:
    """Return the probabilities that the shots are drawn from, with a graph where `angles` have one."""
    if how.noise is not None:
        return noisy_probabilities(angles, how.ansatz, how.noise, seed=how.seed)
    return BACKENDS[how.backend].probabilities(angles, how.ansatz, None)


def _measure(angles: Tensor, how: Measurement, draw: Tensor, purpose: str) -> Tensor:
    """Simulate and measure, without a graph."""
    p = _simulate(angles.detach(), how)
    return p if how.shots is None else _frequencies(p, draw, how.shots, how.seed, purpose)


def _n_together(n_values: int, device: str) -> int:
    """Return how many offsets, each of two times `n_values` probabilities, are simulated in one call."""
    return max(1, CALL_VALUES[device] // (2 * n_values))


def _slopes(angles: Tensor, offsets: Tensor, grad: Tensor, how: Measurement, draw: Tensor) -> Tensor:
    """Return by how much (measured values * grad).sum() differs between angles + offset and angles - offset.

    Args:
        angles: of all circuits, shape (n_circuits, ...).
        offsets: shape (n_offsets, n_circuits, ...).
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


def parameter_shift(angles: Tensor, grad: Tensor, how: Measurement, draw: Tensor) -> Tensor:
    """Return the gradient from circuits with one angle shifted by +pi/2 and -pi/2, two for each angle.

    Exact for rotations, whose values are sines of each angle: without shots it is the exact gradient. With shots every
    shifted circuit is measured as often as the circuit itself.

    Source: Schuld et al., Phys. Rev. A 99, 032331 (https://arxiv.org/abs/1811.11184).

    Args:
        angles: shape (n_circuits, ...).
        grad: of the loss by the measured values, shape (n_circuits, 2**n_qubits).
        how: the measurement.
        draw: its number.

    Returns:
        The gradient by the angles, of their shape.
    """
    n_angles = angles[0].numel()
    offsets = torch.eye(n_angles, dtype=angles.dtype, device=angles.device) * (math.pi / 2)
    offsets = offsets.view(n_angles, 1, *angles.shape[1:])
    return _slopes(angles, offsets, grad, how, draw).t().reshape(angles.shape) / 2


def spsa(angles: Tensor, grad: Tensor, how: Measurement, draw: Tensor) -> Tensor:
    """Return the mean over `SPSA_DIRECTIONS` random directions of the slope along each, times the direction.

    All angles of a circuit move together, each by `SPSA_STEP` up or down, so the number of circuits does not depend
    on that of the angles. Biased by the finite step, and noisy: each angle's share carries the others' as noise.

    Source: Spall, IEEE Trans. Autom. Control 37, 332 (1992).

    Args:
        angles: shape (n_circuits, ...).
        grad: of the loss by the measured values, shape (n_circuits, 2**n_qubits).
        how: the measurement.
        draw: its number, of which the directions depend too.

    Returns:
        The estimate of the gradient by the angles, of their shape.
    """
    signs = _signs(angles, draw, how.seed)
    slopes = _slopes(angles, signs * SPSA_STEP, grad, how, draw)
    slopes = slopes.view(*slopes.shape, *[1] * (angles.dim() - 1))
    return (slopes * signs).mean(0) / (2 * SPSA_STEP)


Estimator = Callable[[Tensor, Tensor, Measurement, Tensor], Tensor]
# "exact" is the backward pass of the simulation, at the measured values: a simulator's privilege, no device has it.
# "none" is for optimizers without gradients.
ESTIMATORS: dict[str, Estimator | None] = {
    "exact": None,
    "parameter_shift": parameter_shift,
    "spsa": spsa,
    "none": None,
}


def n_measured(gradient: str, n_angles: int) -> int:
    """Return how many circuits one gradient measures, the unshifted one included, for one circuit of `n_angles`.

    Example:
        >>> n_measured("parameter_shift", 56), n_measured("spsa", 56), n_measured("none", 56)
        (113, 17, 1)
    """
    return 1 + 2 * _n_offsets(gradient, n_angles)


def n_simulated(gradient: str, n_angles: int, n_circuits: int, n_qubits: int, device: str = "cpu") -> int:
    """Return how many circuits are simulated at a time, at the most, for one gradient of `n_circuits` circuits."""
    n_offsets = min(_n_offsets(gradient, n_angles), _n_together(n_circuits * 2**n_qubits, device))
    return n_circuits * max(1, 2 * n_offsets)


def _n_offsets(gradient: str, n_angles: int) -> int:
    return {"parameter_shift": n_angles, "spsa": SPSA_DIRECTIONS}.get(gradient, 0)


class _Estimated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, draw: Tensor, how: Measurement) -> Tensor:
        ctx.save_for_backward(angles, draw.clone())  # the next step counts on in place
        ctx.how = how
        return _measure(angles, how, draw, "shots")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        angles, draw = ctx.saved_tensors
        estimate = ESTIMATORS[ctx.how.gradient]
        assert estimate is not None
        return estimate(angles, grad, ctx.how, draw), None, None


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
        draw: number of the draw, an int64 tensor; another number gives other shots.

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
    p = _simulate(angles, how)
    if how.shots is None:
        return p
    return _StraightThrough.apply(p, _frequencies(p.detach(), draw, how.shots, how.seed, "shots"))
