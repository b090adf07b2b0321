"""Shots: how many they are, and the counts they give, drawn from exact probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpa_hf.accelerators import off_mps, sent
from qpa_hf.messages import MOST, shown

if TYPE_CHECKING:
    from jaxtyping import Float, Int

BLOCK_SHOTS = 2**16  # drawn at a time: what they take stays in a core's cache, and memory does not grow with the shots
FIXED_POINT = 2**52  # probabilities are summed as whole numbers: in any order, on any device, to the same bits
SHOTS_PER_STATE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)x")


def check_shots(shots: int | str | None) -> None:
    """Raise if `shots` is neither None, nor a number of at least 1, nor shots per basis state such as "20x".

    Raises:
        ValueError: saying what is allowed.
    """
    is_number = isinstance(shots, int) and not isinstance(shots, bool) and 1 <= shots <= MOST
    is_per_state = isinstance(shots, str) and SHOTS_PER_STATE.fullmatch(shots) and float(shots[:-1]) > 0
    if shots is not None and not is_number and not is_per_state:
        raise ValueError(
            f"`shots`={shown(shots)} is not allowed. Set it to None (exact), a whole number of at least 1, or shots "
            'per basis state such as "20x".'
        )


def n_shots(shots: int | str | None, n_qubits: int) -> int | None:
    """Return the number of shots of each circuit; None stands for exact probabilities.

    Args:
        shots: None, a number of shots, or shots per basis state: "20x" is 20 * 2**n_qubits.
        n_qubits: the number of qubits of each circuit.

    Raises:
        ValueError: if `shots` is malformed, or less than one shot.

    Example:
        >>> n_shots("20x", 10), n_shots("0.5x", 4), n_shots(100, 10), n_shots(None, 10)
        (20480, 8, 100, None)
    """
    check_shots(shots)
    if not isinstance(shots, str):
        return shots
    number = float(shots[:-1]) * 2**n_qubits
    if not 1 <= number < math.inf:
        raise ValueError(
            f"`shots`={shots!r} is {number:.3g} shots for {n_qubits} qubits, so that every count would be zero. Set "
            f'at least 1 shot: a whole number, or more of each basis state ("1x" is {2**n_qubits:,} shots).'
        )
    return round(number)


def sample(
    p: Float[Tensor, "*circuits n_states"], shots: int, rng: torch.Generator
) -> Int[Tensor, "*circuits n_states"]:
    """Draw multinomial counts: `shots` measurements of every circuit.

    Uniform numbers decide, each for one shot and apart from `p`: where another device or form of the simulation rounds
    `p` differently, a shot may fall on the neighbouring state, and nothing else changes. They are drawn in ascending
    order, as sums of exponential gaps, so that only the states are looked up among the shots.

    Args:
        p: the probabilities, shape (..., n_states), non-negative, each row summing to 1 but for rounding.
        shots: the number of measurements of each circuit, at least 1.
        rng: a CPU generator; its numbers are the same whatever the device of `p`.

    Returns:
        Counts, int64, of p's shape and device.

    Example:
        >>> sample(torch.tensor([0.0, 1.0, 0.0, 0.0]), 100, torch.Generator().manual_seed(0))
        tensor([  0, 100,   0,   0])
    """
    # The states lie end to end on a line from 0 to 1, each as long as its probability, and every shot is a point on
    # it. With p = (0.5, 0, 0, 0.5) and points 0.2, 0.4 and 0.7, 2 shots lie below the end of |00>, still 2 below that
    # of |10>, and all 3 below that of |11>: the differences are the counts (2, 0, 0, 1).
    rows = off_mps(p.detach()).reshape(-1, p.shape[-1]).double().clamp_min(0)
    sums = (rows * FIXED_POINT).round_().long().cumsum(-1)
    shares = sums.double() / sums[:, -1:]
    below = torch.zeros_like(sums)
    for first, last, n in _blocks(len(rows), shots):
        # Sums of n exponential gaps, over the sum of n + 1, are n uniform points in ascending order: no sort is
        # needed.
        gaps = torch.rand(last - first, n + 1, generator=rng).neg_().add_(1).log_().neg_()
        ascending = sent(gaps.cumsum(-1, dtype=torch.float64), rows)
        wanted = shares[first:last]
        found = torch.searchsorted(ascending, wanted * ascending[:, -1:])
        below[first:last] += found.masked_fill_(wanted == 1, n)  # also where the last gap is zero
    return below.diff(prepend=below.new_zeros(len(below), 1)).view(p.shape).to(p.device)


def _blocks(n_rows: int, shots: int) -> Iterator[tuple[int, int, int]]:
    """Yield first row, last row and shots of what is drawn together."""
    step = max(1, BLOCK_SHOTS // shots)
    for first in range(0, n_rows, step):
        for done in range(0, shots, BLOCK_SHOTS):
            yield first, min(first + step, n_rows), min(BLOCK_SHOTS, shots - done)
