"""Few qubits: two matrix products a layer with the CNOT chains folded in, all angle gradients from a few more."""

from __future__ import annotations

import torch
from torch import Tensor

from qpa_hf.circuit.tables import FoldedTables, folded_tables

# Measured: beyond, the matrices of all layers and circuits outgrow the cache, and smaller groups of qubits win.
FEW_QUBITS, MAX_QUBITS, MAX_NUMBERS = 11, 14, 2**15

Kept = tuple[Tensor, Tensor, list[Tensor]]  # high and low matrices of all layers, |0...0> and the state after each


def _tables(angles: Tensor, axes: tuple[str, ...]) -> FoldedTables:
    return folded_tables(angles.shape[-1], axes, angles.dtype, angles.device)


def _kronecker(a: Tensor, b: Tensor) -> Tensor:
    """Return the Kronecker product of matrices (..., m, m) and (..., n, n), shape (..., m * n, m * n)."""
    return (a[..., :, None, :, None] * b[..., None, :, None, :]).flatten(-4, -3).flatten(-2, -1)


def _matrices(angles: Tensor, axes: tuple[str, ...], t: FoldedTables) -> tuple[Tensor, Tensor]:
    """Return the layers' matrices, (L, C, A, A) and (L, C, V, B, B): A and B high and low states, V low variants.

    The low matrices multiply from the right, so they are transposed.
    """
    half = angles.transpose(0, 1) * 0.5  # (L, C, R, N)
    cos, sin = half[:, :, 0].cos(), half[:, :, 0].sin()
    one = t.one.expand(*cos.shape[:2], 1)
    single = torch.cat((cos, sin, -sin, one) if axes[0] == "y" else (cos, sin * -1j, one), -1)
    entries = single.index_select(-1, t.factors).view(*cos.shape[:2], -1, sum(size**2 for size in t.halves)).prod(2)
    first, second, third, fourth = (
        part.unflatten(-1, (size, size))
        for part, size in zip(entries.split([n * n for n in t.halves], -1), t.halves, strict=True)
    )
    high, low = _kronecker(first, second), _kronecker(third, fourth)
    high = high.index_select(-2, t.high_rows)
    low = low.index_select(-2, t.low_rows)  # (L, C, V * B, B)
    if "z" in axes:  # diagonal: it scales the rows
        turn = half[:, :, 1] @ t.z_turns  # (L, C, A + V * B)
        phases = torch.complex(turn.cos(), turn.sin()).unsqueeze(-1)
        high = high * phases[:, :, : high.shape[-1]]
        low = low * phases[:, :, high.shape[-1] :]
    return high, low.unflatten(2, (t.n_variants, -1)).mT


def forward(angles: Tensor, axes: tuple[str, ...]) -> tuple[Tensor, Kept]:
    """Return the probabilities (C, 2**N) and what the backward pass needs.

    Args:
        angles: (C, L, R, N) in radians.
        axes: the rotations of a layer: "x" or "y", then possibly "z".
    """
    n_circuits = angles.shape[0]
    t = _tables(angles, axes)
    high, low = _matrices(angles, axes, t)
    # The first layer acts on |0...0>: only the first columns of its matrices matter.
    state = high[0][..., :1].unflatten(1, (t.n_variants, -1)) * low[0][:, :, :1]  # (C, V, A / V, B)
    low = low.flatten(1, 2)
    n_high, n_low = high.shape[-1], low.shape[-1]
    rows, columns = (n_circuits, n_high, n_low), (n_circuits * t.n_variants, -1, n_low)
    states = [t.start.expand(rows), state.view(rows)]
    for to_high, to_low in zip(high.unbind(0)[1:], low.unbind(0)[1:], strict=True):
        state = torch.bmm(torch.bmm(to_high, states[-1]).view(columns), to_low)
        states.append(state.view(rows))
    squared = torch.view_as_real(state).square().sum(-1) if state.is_complex() else state.square()
    p = squared.view(n_circuits, t.n_variants, -1, n_low).transpose(1, 2).reshape(n_circuits, -1)
    return p, (high, low, states)


def backward(angles: Tensor, kept: Kept, grad: Tensor, axes: tuple[str, ...]) -> Tensor:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N).

    Only the adjoint state travels back. R_X and R_Y generators commute with their own rotations, so they are applied
    before the layer, where they act on one qubit each; those of R_Z are diagonal after it.
    """
    n_circuits, depth = angles.shape[:2]
    t = _tables(angles, axes)
    high, low, states = kept
    n_high, n_low = high.shape[-1], low.shape[-1]
    rows, columns = (n_circuits, n_high, n_low), (n_circuits * t.n_variants, -1, n_low)
    spread = grad.view(n_circuits, -1, t.n_variants, n_low).transpose(1, 2)
    adjoint = (states[-1].view(spread.shape) * spread).reshape(rows)
    after, before = [], []
    for to_high, to_low in zip(reversed(high.mH.unbind(0)), reversed(low.mH.unbind(0)), strict=True):
        after.append(adjoint)
        adjoint = torch.bmm(to_high, torch.bmm(adjoint.view(columns), to_low).view(rows))
        before.append(adjoint)
    shape = (depth * n_circuits, n_high, n_low)
    inputs, adjoints = torch.stack(states[:-1]).view(shape), torch.stack(before[::-1]).view(shape)
    of_high, of_low = torch.bmm(adjoints.conj(), inputs.mT).flatten(1), torch.bmm(adjoints.mH, inputs).flatten(1)
    if of_high.is_complex():
        of_high, of_low = (m.real if axes[0] == "y" else m.imag for m in (of_high, of_low))
    grads = torch.cat((of_high @ t.high_generators, of_low @ t.low_generators), -1)  # (L * C, N)
    if "z" in axes:
        overlap = (torch.stack(after[::-1]).conj() * torch.stack(states[1:])).imag
        grads = torch.stack((grads, overlap.reshape(depth * n_circuits, -1) @ t.z_generators), 1)
    return grads.view(depth, n_circuits, len(axes), -1).transpose(0, 1)
