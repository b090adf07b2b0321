"""`measure`: the shares of basis states, simulated or from a device, with the gradient that an estimator gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpa_hf.measurement import device as devices
from qpa_hf.measurement.backends import BACKENDS
from qpa_hf.measurement.estimators import ESTIMATORS, Estimator, n_offsets
from qpa_hf.measurement.noise import noisy_probabilities
from qpa_hf.measurement.settings import DeviceSettings, Measurement
from qpa_hf.measurement.shots import sample
from qpa_hf.processes import is_one_of_several
from qpa_hf.reproducible import seeded

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# Probabilities simulated in one call. On a CPU those of 112 circuits of 7 qubits; more leave a core's cache, and take
# two or three times as long as several calls.
CALL_VALUES = {"cpu": 2**14, "cuda": 2**24}


# One operation for torch.compile, as in `estimators`: its seed comes from a number that only a run knows.
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
    """Have a device measure all circuits, in one job if they fit."""
    assert how.shots is not None
    if is_one_of_several():
        raise RuntimeError(
            "Only one process may use a device, because each would submit its own jobs. Start a single one."
        )
    counts = devices.sample(
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


def _shares(angles: Tensor, how: Measurement, draw: Tensor, purpose: str) -> Tensor:
    """Return the shares that a measurement gives, without a graph."""
    if how.device is not None:
        return _on_device(angles.detach(), how, how.device, draw)
    p = _simulate(angles.detach(), how, draw, purpose)
    return p if how.shots is None else _frequencies(p, draw, how.shots, how.seed, purpose)


def _n_together(n_values: int, device: str) -> int:
    """Return how many offsets, each of two times `n_values` probabilities, are simulated in one call."""
    return max(1, CALL_VALUES.get(device, CALL_VALUES["cuda"]) // (2 * n_values))


def _slopes(angles: Tensor, offsets: Tensor, grad: Tensor, how: Measurement, draw: Tensor) -> Tensor:
    """Return by how much (shares * grad).sum() differs between angles + offset and angles - offset.

    Args:
        angles: the angles of all circuits, shape (n_circuits, ...).
        offsets: how much the angles are moved, shape (n_offsets, n_circuits or 1, ...).
        grad: the gradient of the shares, shape (n_circuits, 2**n_qubits).
        how: the settings of the measurement.
        draw: the number of the draw.

    Returns:
        The differences, shape (n_offsets, n_circuits).
    """
    n_together = _n_together(grad.numel(), angles.device.type)
    found = []
    for i, some in enumerate(offsets.split(n_together)):
        shifted = torch.stack([angles + some, angles - some])  # (2, some, n_circuits, ...)
        plus, minus = _shares(shifted, how, draw, f"shifted {i}")
        found.append((plus.sub_(minus) * grad).sum(-1))
    return torch.cat(found)


def n_simulated(gradient: str, n_angles: int, n_circuits: int, n_qubits: int, device: str = "cpu") -> int:
    """Return how many circuits are simulated at a time, at the most, for one gradient of `n_circuits` circuits."""
    n_pairs = min(n_offsets(gradient, n_angles), _n_together(n_circuits * 2**n_qubits, device))
    return n_circuits * max(1, 2 * n_pairs)


class _Estimated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, draw: Tensor, how: Measurement) -> Tensor:
        # The next step counts `draw` up in place, and the backward pass must draw the same shots and directions again.
        ctx.save_for_backward(angles, draw.clone())
        ctx.how = how
        ctx.differences = None
        if how.device is None or not ctx.needs_input_grad[0]:
            return _shares(angles, how, draw, "shots")
        # A device is asked once in a step, before the gradient is known, for all circuits that it may need.
        offsets = _estimator(how).offsets(angles, draw, how.seed)
        shares = _shares(torch.cat([angles[None], angles + offsets, angles - offsets]), how, draw, "shots")
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


# Drawing shots has no derivative. The shares take the place of the probabilities in the forward pass, and the gradient
# goes back to the probabilities as if nothing had been drawn.
class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, p: Tensor, shares: Tensor) -> Tensor:
        return shares.view_as(shares)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def measure(
    angles: Float[Tensor, "n_circuits *layers n_qubits"], how: Measurement, draw: Int[Tensor, ""]
) -> Float[Tensor, "n_circuits n_states"]:
    """Measure circuits: return the share of the shots that each basis state has, or its probability without shots.

    The same angles, seed and draw give the same bits, with gradients or without. In the backward pass the angles'
    gradient is what `how.gradient` names.

    Args:
        angles: the rotation angles in radians, shape (n_circuits, ...), as for `probabilities`.
        how: the settings of the measurement.
        draw: the number of the draw, an int64 tensor; another number gives other shots and errors.

    Returns:
        Shares of the 2**n_qubits basis states, shape (n_circuits, 2**n_qubits), of the angles' dtype.

    Example:
        >>> angles = torch.tensor([[[torch.pi / 2, 0.0]]])  # |00> + |11>
        >>> measure(angles, Measurement(shots=1000), torch.tensor(0)).shape
        torch.Size([1, 4])
    """
    if how.gradient == "none":
        return _shares(angles, how, draw, "shots")
    if how.gradient != "exact":
        return _Estimated.apply(angles, draw, how)
    p = _simulate(angles, how, draw, "shots")
    if how.shots is None:
        return p
    return _StraightThrough.apply(p, _frequencies(p.detach(), draw, how.shots, how.seed, "shots"))
