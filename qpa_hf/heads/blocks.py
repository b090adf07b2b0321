"""Layers of CNOT + R_Y blocks on a ring of qubits, applied to a batch of states at once.

Consecutive blocks that touch few qubits are multiplied out first: a window. The batch then takes one matrix product
for each window instead of several passes for each gate. CNOT and R_Y are real, and so are the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

WINDOW_QUBITS = 5  # measured: 4 and 6 take longer at 10 qubits and a batch of 256

Block = tuple[int, int]  # control and target; twice the same qubit stands for an R_Y alone


def layer_blocks(n_qubits: int, connectivity: int) -> tuple[Block, ...]:
    """Return one layer's blocks in time order: first all pairs at distance 1 on the ring, then 2, ..., connectivity.

    On a narrow ring there are no distances above half of it; one qubit alone has an R_Y.

    Source: Fig. 2 of https://arxiv.org/abs/2504.08732. That the line is closed to a ring, so that each qubit is a
    target, and that R_Y acts on the target, are choices the paper leaves open.

    Example:
        >>> layer_blocks(3, 1)
        ((0, 1), (1, 2), (2, 0))
    """
    if n_qubits == 1:
        return ((0, 0),)
    farthest = min(connectivity, n_qubits // 2)
    return tuple((q, (q + c) % n_qubits) for c in range(1, farthest + 1) for q in range(n_qubits))


class _Windows(NamedTuple):
    """What does not depend on the angles.

    Args:
        qubits: of each window.
        angles: which angle each factor has, (W, K); the one after the last stands for none.
        factors: what the cosine and the sine of half of it multiply, (2, W, K, D, D), D = 2**(qubits of a window).
    """

    qubits: list[tuple[int, ...]]
    angles: Tensor
    factors: Tensor


def _fitting(blocks: Sequence[Block], waiting: Sequence[int], qubits: set[int]) -> list[int]:
    """Return those of the waiting blocks that touch only these qubits and wait for no block left out."""
    taken, blocked = [], set()
    for i in waiting:
        if qubits.issuperset(blocks[i]) and blocked.isdisjoint(blocks[i]):
            taken.append(i)
        else:
            blocked.update(blocks[i])
            if blocked >= qubits:
                break
    return taken


def _split(blocks: Sequence[Block], size: int) -> list[tuple[tuple[int, ...], list[int]]]:
    """Distribute the blocks over windows of `size` qubits, each grown by the qubit that lets most blocks in."""
    waiting, windows = list(range(len(blocks))), []
    while waiting:
        nearest = list(dict.fromkeys(q for i in waiting for q in blocks[i]))  # by their next block
        nearest += sorted(set(range(size)) - set(nearest))
        qubits = set(blocks[waiting[0]])
        while len(qubits) < size:
            others = [q for q in nearest if q not in qubits]
            qubits.add(max(others, key=lambda q: len(_fitting(blocks, waiting, qubits | {q}))))
        taken = _fitting(blocks, waiting, qubits)
        windows.append((tuple(sorted(qubits)), taken))
        waiting = [i for i in waiting if i not in set(taken)]
    return windows


def _factor(block: Block, qubits: tuple[int, ...]) -> Tensor:
    """Return what cosine and sine multiply in R_Y(target) CNOT(control, target), (2, D, D)."""
    n_states = 2 ** len(qubits)
    control, target = (len(qubits) - 1 - qubits.index(q) for q in block)
    states = torch.arange(n_states)
    flipped = states ^ (((states >> control) & 1) << target) if control != target else states
    cosine = torch.zeros(n_states, n_states)
    cosine[flipped, states] = 1
    sign = 1.0 - 2.0 * ((flipped >> target) & 1)
    sine = torch.zeros(n_states, n_states)
    sine[flipped ^ (1 << target), states] = sign
    return torch.stack((cosine, sine))


@lru_cache(maxsize=64)
def _windows(n_qubits: int, connectivity: int, n_layers: int, dtype: torch.dtype, device: torch.device) -> _Windows:
    blocks = layer_blocks(n_qubits, connectivity) * n_layers
    size = min(n_qubits, WINDOW_QUBITS)
    parts = _split(blocks, size)
    longest = max(len(taken) for _, taken in parts)
    length = 1 << (longest - 1).bit_length()  # they are multiplied in pairs
    angles = torch.full((len(parts), length), len(blocks))
    factors = torch.zeros(2, len(parts), length, 2**size, 2**size)
    factors[0] = torch.eye(2**size)
    for w, (qubits, taken) in enumerate(parts):
        angles[w, : len(taken)] = torch.tensor(taken)
        for k, i in enumerate(taken):
            factors[:, w, k] = _factor(blocks[i], qubits)
    return _Windows([qubits for qubits, _ in parts], angles.to(device), factors.to(device, dtype))


def _matrices(angles: Tensor, windows: _Windows) -> Tensor:
    """Return the windows' matrices, (E, W, D, D), given angles (E, n_angles)."""
    half = torch.cat((angles, angles.new_zeros(len(angles), 1)), 1)[:, windows.angles] / 2  # (E, W, K)
    waves = torch.stack((half.cos(), half.sin()), -1)
    product = torch.einsum("ewka,awkij->ewkij", waves, windows.factors)
    while product.shape[2] > 1:
        product = product[:, :, 1::2] @ product[:, :, ::2]
    return product.squeeze(2)


def run_blocks(states: Tensor, angles: Tensor, connectivity: int) -> Tensor:
    """Apply layers of blocks, the same to all states of a batch.

    Args:
        states: real amplitudes, shape (n_circuits, 2**n_qubits, batch), qubit 0 the most significant bit.
        angles: radians, shape (n_circuits, n_layers, blocks of a layer).
        connectivity: largest distance on the ring of a block's qubits.

    Returns:
        The states after the layers, of the same shape; differentiable in both.
    """
    n_circuits, n_states, batch = states.shape
    n_qubits = n_states.bit_length() - 1
    if angles.shape[1] == 0:
        return states
    windows = _windows(n_qubits, connectivity, angles.shape[1], states.dtype, states.device)
    matrices = _matrices(angles.flatten(1), windows)
    order = list(range(n_qubits))  # the qubits' places change, so that a window's are in front
    for window, matrix in zip(windows.qubits, matrices.unbind(1), strict=True):
        states = _move(states, order, window)
        states = torch.bmm(matrix, states.reshape(n_circuits, matrix.shape[-1], -1)).view(n_circuits, n_states, batch)
        order = [*window, *(q for q in order if q not in window)]
    return _move(states, order, tuple(range(n_qubits)))


def _move(states: Tensor, order: list[int], front: tuple[int, ...]) -> Tensor:
    """Return the states with some qubits moved to the front."""
    wanted = [*front, *(q for q in order if q not in front)]
    if wanted == order:
        return states
    split = states.unflatten(1, [2] * len(order))
    places = [1 + order.index(q) for q in wanted]
    return split.permute(0, *places, len(order) + 1).reshape(states.shape)


def run_blocks_apart(states: Tensor, angles: Tensor, connectivity: int) -> Tensor:
    """Apply layers of blocks gate by gate, with other angles for each state of the batch.

    Args:
        states: shape (2**n_qubits, batch).
        angles: radians, shape (n_layers, blocks of a layer, batch).
        connectivity: as for `run_blocks`.

    Returns:
        Shape (2**n_qubits, batch).
    """
    n_qubits = len(states).bit_length() - 1
    cos, sin = torch.cos(angles / 2), torch.sin(angles / 2)
    for layer in range(len(angles)):
        for i, (control, target) in enumerate(layer_blocks(n_qubits, connectivity)):
            split = states.unflatten(0, [2] * n_qubits)
            if control == target:
                low, high = split.unbind(target)
            else:
                off, on = split.unbind(control)
                place = target - (control < target)
                low, high = (
                    torch.stack((off.select(place, bit), on.select(place, 1 - bit)), control - (target < control))
                    for bit in (0, 1)
                )
            c, s = cos[layer, i], sin[layer, i]
            states = torch.stack((c * low - s * high, s * low + c * high), target).flatten(0, -2)
    return states
