"""Gradients of measured shares from other circuits, as a device can give them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from qpa_hf.accelerators import sent
from qpa_hf.reproducible import seeded

SPSA_DIRECTIONS = 8  # random directions whose slopes are averaged
SPSA_STEP = 0.1  # radians, of every angle


# torch.compile sees a draw as one operation: a generator's state has no place in a traced graph.
@torch.library.custom_op("qpa_hf::signs", mutates_args=())
def _signs(angles: Tensor, draw: Tensor, seed: int) -> Tensor:
    """Draw random directions, shape (SPSA_DIRECTIONS, *angles.shape), of -1 and +1."""
    rng = seeded(seed, f"directions {int(draw)}")
    return sent(torch.randint(2, (SPSA_DIRECTIONS, *angles.shape), generator=rng), angles, angles.dtype) * 2 - 1


@_signs.register_fake
def _(angles: Tensor, draw: Tensor, seed: int) -> Tensor:
    return angles.new_empty(SPSA_DIRECTIONS, *angles.shape)


class Estimator(NamedTuple):
    """A gradient from differences between circuits with their angles moved one way and the other.

    Args:
        offsets: a function from the angles, shape (n_circuits, ...), the number of the draw and the seed to how much
            the angles are moved, shape (n_offsets, n_circuits or 1, ...).
        n_offsets: a function from the number of a circuit's angles to the number of its offsets.
        combine: a function from the differences of the loss, shape (n_offsets, n_circuits), and the offsets to the
            gradient of the angles.
    """

    offsets: Callable[[Tensor, Tensor, int], Tensor]
    n_offsets: Callable[[int], int]
    combine: Callable[[Tensor, Tensor], Tensor]


# The probabilities of a circuit are a + b cos(angle) + c sin(angle) in each angle. Half the difference between a
# quarter turn forth and one back is then exactly the slope: with p = sin(angle), (cos(angle) - -cos(angle)) / 2 =
# cos(angle).
def _quarter_turns(angles: Tensor, draw: Tensor, seed: int) -> Tensor:
    turns = torch.eye(angles[0].numel(), dtype=angles.dtype, device=angles.device) * (math.pi / 2)
    return turns.view(-1, 1, *angles.shape[1:])


def _half_differences(differences: Tensor, offsets: Tensor) -> Tensor:
    # Each offset moves one angle, so the differences of a circuit are already its gradient, one entry for each angle.
    return differences.t().reshape(-1, *offsets.shape[2:]) / 2


def _random_directions(angles: Tensor, draw: Tensor, seed: int) -> Tensor:
    return _signs(angles, draw, seed) * SPSA_STEP


def _mean_slope(differences: Tensor, offsets: Tensor) -> Tensor:
    # A difference along a direction d of -1 and +1 is about 2 * step * <gradient, d>. Times d, and averaged over
    # random directions, it is the gradient, because the mean of d d^T is the identity.
    differences = differences.view(*differences.shape, *[1] * (offsets.dim() - 2))
    return (differences * offsets).mean(0) / (2 * SPSA_STEP**2)


# - "parameter_shift": one angle at a time, by pi/2: exact for rotations, whose values are sines of each angle
#   (Schuld et al., https://arxiv.org/abs/1811.11184).
# - "spsa": all angles of a circuit together, along random directions, so the number of circuits does not depend on
#   that of the angles; biased by the finite step, and each angle's share carries the others' as noise (Spall, IEEE
#   Trans. Autom. Control 37, 332, 1992).
# - "exact": the backward pass of the simulation, at the measured values: a simulator's privilege, no device has it.
# - "none": for optimizers without gradients.
ESTIMATORS: dict[str, Estimator | None] = {
    "exact": None,
    "parameter_shift": Estimator(_quarter_turns, lambda n_angles: n_angles, _half_differences),
    "spsa": Estimator(_random_directions, lambda n_angles: SPSA_DIRECTIONS, _mean_slope),
    "none": None,
}


def n_offsets(gradient: str, n_angles: int) -> int:
    """Return how many pairs of moved circuits one gradient takes, for one circuit of `n_angles`."""
    estimator = ESTIMATORS[gradient]
    return 0 if estimator is None else estimator.n_offsets(n_angles)


def circuits_per_gradient(gradient: str, n_angles: int) -> int:
    """Return how many circuits one gradient measures, the unshifted one included, for one circuit of `n_angles`.

    Example:
        >>> [circuits_per_gradient(name, 56) for name in ("parameter_shift", "spsa", "none")]
        [113, 17, 1]
    """
    return 1 + 2 * n_offsets(gradient, n_angles)
