"""Layers of CNOT + R_Y blocks on a ring of qubits, applied to a batch of states at once.

Consecutive blocks that turn few qubits are multiplied out first: a window. `simulation` then takes one matrix product
for each window instead of several passes for each gate. A qubit that only controls within a window chooses between two
smaller matrices, which halves the work. CNOT and R_Y are real, and so are the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# The size of a window, as measured at 10 qubits and a batch of 256: smaller ones move the states more often, larger
# ones compute more for each block.
TARGETS = 4
CONTROLS = 2

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


def window_size(n_qubits: int) -> tuple[int, int]:
    """Return how many targets, and qubits that only control, a window has."""
    # Two qubits have one window of two targets: both of their blocks are one matrix of 4 x 4, and nothing chooses.
    n_targets = min(TARGETS, n_qubits)
    return n_targets, min(CONTROLS, n_qubits - n_targets)


class Windows(NamedTuple):
    """What does not depend on the angles.

    Args:
        qubits: the qubits of each window, those that only control first.
        angles: the index of each factor's angle, (W, K); the one after the last stands for no angle.
        factors: the matrices that the cosine and the sine of half the angle multiply, (2, W, K, V, D, D),
            V = 2**(controls), D = 2**(targets).
    """

    qubits: tuple[tuple[int, ...], ...]
    angles: Tensor
    factors: Tensor


class _Part(NamedTuple):
    """The blocks of a window: those of the sequence that come next and wait for none left out."""

    taken: list[int]
    controls: list[int]  # which are no targets


def _part(blocks: Sequence[Block], waiting: Sequence[int], targets: set[int]) -> _Part:
    # Blocks on other qubits commute, so a block may overtake those that were left out, unless it shares a qubit with
    # one of them: that qubit's gates must keep their order.
    part = _Part([], [])
    blocked = set[int]()
    for i in waiting:
        control, target = blocks[i]
        is_free = target in targets and control not in blocked and target not in blocked
        is_new = control not in targets and control not in part.controls
        if is_free and (not is_new or len(part.controls) < CONTROLS):
            part.taken.append(i)
            part.controls.extend([control] if is_new else [])
        else:
            blocked.update(blocks[i])
            if blocked >= targets:
                break
    return part


def _split(blocks: Sequence[Block], n_qubits: int) -> list[tuple[tuple[int, ...], tuple[int, ...], list[int]]]:
    """Distribute the blocks over windows: their controls, their targets and their blocks.

    A window grows by the target that lets most blocks in; where that is equal, by the one whose next block is nearest.
    """
    waiting = list(range(len(blocks)))
    windows = []
    n_targets, n_controls = window_size(n_qubits)
    while waiting:
        nearest = list(dict.fromkeys([*(q for i in waiting for q in blocks[i]), *range(n_qubits)]))
        targets = {blocks[waiting[0]][1]}
        while len(targets) < n_targets:
            others = [q for q in nearest if q not in targets]
            targets.add(max(others, key=lambda q: len(_part(blocks, waiting, targets | {q}).taken)))
        taken, controls = _part(blocks, waiting, targets)
        idle = [q for q in range(n_qubits) if q not in targets and q not in controls]
        windows.append(((*controls, *idle[: n_controls - len(controls)]), tuple(sorted(targets)), taken))
        waiting = sorted(set(waiting) - set(taken))
    return windows


def _factor(block: Block, controls: tuple[int, ...], targets: tuple[int, ...]) -> Tensor:
    """Return what cosine and sine multiply in R_Y(target) CNOT(control, target), (2, V, D, D)."""
    # R_Y(a) is cos(a / 2) times the identity plus sin(a / 2) times G, which takes |0> to |1> and |1> to -|0>. So the
    # block is a sum of two constant matrices, the CNOT and G after it. For CNOT(0, 1) on two targets the first
    # exchanges |10> and |11>.
    control, target = block
    variants = torch.arange(2 ** len(controls))[:, None]
    states = torch.arange(2 ** len(targets))
    place = len(targets) - 1 - targets.index(target)
    is_on = torch.zeros(len(variants), len(states), dtype=torch.long)
    if control in controls:
        is_on += variants >> (len(controls) - 1 - controls.index(control)) & 1
    elif control != target:
        is_on += states >> (len(targets) - 1 - targets.index(control)) & 1
    flipped = states ^ (is_on << place)
    factor = torch.zeros(2, len(variants), len(states), len(states))
    factor[0, variants, flipped, states] = 1
    factor[1, variants, flipped ^ (1 << place), states] = 1.0 - 2 * (flipped >> place & 1)
    return factor


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a table that was made in inference mode could not be trained with later
def find_windows(n_qubits: int, connectivity: int, n_layers: int, dtype: torch.dtype, device: torch.device) -> Windows:
    """Return the windows of layers of blocks; the tables are made once."""
    blocks = layer_blocks(n_qubits, connectivity) * n_layers
    windows = _split(blocks, n_qubits)
    longest = max((len(taken) for *_, taken in windows), default=1)
    length = 1 << (longest - 1).bit_length()  # they are multiplied in pairs
    angles = torch.full((len(windows), length), len(blocks))
    n_targets, n_controls = window_size(n_qubits)
    identity = torch.eye(2**n_targets).expand(2**n_controls, -1, -1)
    factors = torch.stack((identity, torch.zeros_like(identity)))[:, None, None].repeat(1, *angles.shape, 1, 1, 1)
    for w, (controls, targets, taken) in enumerate(windows):
        angles[w, : len(taken)] = torch.tensor(taken)
        for k, i in enumerate(taken):
            factors[:, w, k] = _factor(blocks[i], controls, targets)
    qubits = tuple(controls + targets for controls, targets, _ in windows)
    return Windows(qubits, angles.to(device), factors.to(device, dtype))


def window_matrices(angles: Tensor, n_qubits: int, connectivity: int) -> Tensor:
    """Return layers of blocks as the matrices of their windows.

    Args:
        angles: the rotation angles in radians, shape (n_circuits, n_layers, blocks of a layer).
        n_qubits: the number of qubits of each circuit.
        connectivity: the largest distance on the ring between the two qubits of a block.

    Returns:
        The matrices, shape (n_circuits, windows, V, D, D), see `Windows`.
    """
    n_circuits, n_layers, _ = angles.shape
    windows = find_windows(n_qubits, connectivity, n_layers, angles.dtype, angles.device)
    with_none = torch.cat((angles.flatten(1), angles.new_zeros(n_circuits, 1)), 1)
    half = with_none[:, windows.angles, None, None, None] / 2  # (E, W, K, 1, 1, 1)
    found = half.cos() * windows.factors[0] + half.sin() * windows.factors[1]
    # Neighbours are multiplied, the later one from the left, until one matrix is left: log2(K) batched products.
    while found.shape[2] > 1:
        found = found[:, :, 1::2] @ found[:, :, ::2]
    return found.squeeze(2)


def run_blocks_apart(states: Tensor, angles: Tensor, connectivity: int) -> Tensor:
    """Apply layers of blocks gate by gate, with other angles for each state of the batch: what errors ask for.

    Args:
        states: the real amplitudes, shape (2**n_qubits, batch).
        angles: the rotation angles in radians, shape (n_layers, blocks of a layer, batch).
        connectivity: the largest distance on the ring between the two qubits of a block.

    Returns:
        The amplitudes after all layers, shape (2**n_qubits, batch).
    """
    n_qubits = len(states).bit_length() - 1
    cos, sin = torch.cos(angles / 2), torch.sin(angles / 2)
    for layer in range(len(angles)):
        for i, (control, target) in enumerate(layer_blocks(n_qubits, connectivity)):
            split = states.unflatten(0, [2] * n_qubits)
            if control == target:
                low, high = split.unbind(target)
            else:
                # Where the control is 1, the target's halves are exchanged: `low` is what R_Y then finds as |0>.
                off, on = split.unbind(control)
                place = target - (control < target)
                low, high = (
                    torch.stack((off.select(place, bit), on.select(place, 1 - bit)), control - (target < control))
                    for bit in (0, 1)
                )
            c = cos[layer, i]
            s = sin[layer, i]
            states = torch.stack((c * low - s * high, s * low + c * high), target).flatten(0, -2)
    return states
