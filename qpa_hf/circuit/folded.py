"""R_Y + CNOT on few qubits: two matrix products a layer, all angle gradients from two more."""

from __future__ import annotations

import torch
from torch import Tensor

from qpa_hf.circuit.tables import folded_tables

MAX_QUBITS = 13  # beyond, two groups make matrices of 2^7 and more, and smaller groups win (measured)


def _split(n_qubits: int) -> tuple[int, int]:
    return n_qubits // 2, n_qubits - n_qubits // 2


def _matrices(angles: Tensor) -> tuple[Tensor, Tensor]:
    """Return the layers' matrices, (C, L, 2**a, 2**a) and (C, L, 2, 2**b, 2**b), with the CNOT chain folded in."""
    n_circuits, depth, n_qubits = angles.shape
    a, b = _split(n_qubits)
    high, low = folded_tables(a, b, angles.device)
    half = angles / 2
    cos, sin = half.cos(), half.sin()
    matrices = []
    for tables, part, shape in ((high, slice(0, a), (2**a, 2**a)), (low, slice(a, n_qubits), (2, 2**b, 2**b))):
        factors = torch.cat((cos[..., part], sin[..., part]), -1)  # (C, L, 2 * g)
        products = factors[..., tables.factors].prod(-1)  # (C, L, 2**g)
        entries = products.index_select(-1, tables.flips).view(n_circuits, depth, *shape)
        matrices.append(entries * tables.signs.to(angles.dtype))
    return matrices[0], matrices[1]


def forward(angles: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Return the probabilities (C, 2**N), the final state in folded order, and the layers' matrices."""
    n_circuits, depth, n_qubits = angles.shape
    a, b = _split(n_qubits)
    high, low = _matrices(angles)
    # The first layer acts on |0...0>: only the first columns of its matrices matter.
    state = high[:, 0, :, :1].reshape(n_circuits, 2, -1, 1) * low[:, 0, :, :1]  # (C, 2, 2**(a-1), 2**b)
    for layer in range(1, depth):
        state = high[:, layer] @ state.view(n_circuits, 2**a, 2**b)
        state = torch.bmm(state.view(2 * n_circuits, -1, 2**b), low[:, layer].reshape(-1, 2**b, 2**b))
    state = state.view(n_circuits, 2, -1, 2**b)
    p = state.square().transpose(1, 2).reshape(n_circuits, -1)
    return p, state, (high, low)


def backward(angles: Tensor, state: Tensor, matrices: tuple[Tensor, Tensor], grad: Tensor) -> Tensor:
    """Return the gradient of the angles (C, L, N), given that of the probabilities (C, 2**N).

    State and adjoint state travel back together, side by side before the columns. A layer is orthogonal, so its
    transpose undoes it; the R_Y generators commute with the R_Y layer, so both may be paired before the layer.
    """
    n_circuits, depth, n_qubits = angles.shape
    a, b = _split(n_qubits)
    high, low = matrices
    adjoint = 2 * state * grad.view(n_circuits, -1, 2, 2**b).transpose(1, 2)
    pair = torch.stack((state, adjoint), 3)  # (C, 2, 2**(a-1), 2, 2**b)
    pairs = []
    for layer in range(depth - 1, -1, -1):
        undo_low = low[:, layer].reshape(-1, 2**b, 2**b).transpose(1, 2)
        pair = torch.bmm(pair.view(2 * n_circuits, -1, 2**b), undo_low)
        pair = torch.bmm(high[:, layer].transpose(1, 2), pair.view(n_circuits, 2**a, -1))
        pairs.append(pair)
    pairs.reverse()
    both = torch.stack(pairs, 1).view(n_circuits * depth, 2**a, 2, 2**b)
    before, adjoints = both[:, :, 0], both[:, :, 1]
    tables = folded_tables(a, b, angles.device)
    of_high = torch.bmm(adjoints, before.transpose(1, 2)).flatten(1) @ tables[0].y_generators.to(angles.dtype)
    of_low = torch.bmm(adjoints.transpose(1, 2), before).flatten(1) @ tables[1].y_generators.to(angles.dtype)
    return torch.cat((of_high, of_low), -1).view(n_circuits, depth, n_qubits)
