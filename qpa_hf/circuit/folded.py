"""Few qubits: two matrix products a layer with the CNOT chains folded in, all angle gradients from a few more."""

from __future__ import annotations

import torch
from torch import Tensor

from qpa_hf.circuit.tables import FoldedTables, folded_tables

MAX_QUBITS = 13  # beyond, two groups make matrices of 2^7 and more, and smaller groups win (measured)

Kept = tuple[Tensor, Tensor, list[Tensor]]  # high and low matrices of all layers, |0...0> and the state after each


def _tables(angles: Tensor, axes: tuple[str, ...]) -> FoldedTables:
    return folded_tables(angles.shape[-1], axes, angles.dtype, angles.device)


def _matrices(angles: Tensor, axes: tuple[str, ...], t: FoldedTables) -> tuple[Tensor, Tensor]:
    """Return the layers' matrices, (L, C, A, A) and (L, C, V, B, B): A and B high and low states, V low variants."""
    half = angles.transpose(0, 1) * 0.5  # (L, C, R, N)
    mixing = half[:, :, 0]
    ones = t.one.expand(*mixing.shape[:2], 1)
    trig = torch.cat((mixing.cos(), mixing.sin(), ones), -1)  # (L, C, 2 * N + 1)
    chosen = trig.index_select(-1, t.factors).view(*trig.shape[:2], -1, t.n_high + t.n_low)
    entries = chosen.prod(2).index_select(-1, t.flips) * t.units  # entry (i, j) depends on i ^ j, up to a unit
    n_entries = t.n_high**2
    high = entries[..., :n_entries].unflatten(-1, (t.n_high, t.n_high))
    low = entries[..., n_entries:].unflatten(-1, (t.n_variants, t.n_low, t.n_low))
    if "z" in axes:  # diagonal: it scales the rows, which are the columns of the exchanged low matrix
        turn = half[:, :, 1] @ t.z_turns  # (L, C, A + V * B)
        phases = torch.complex(turn.cos(), turn.sin())
        high = high * phases[..., : t.n_high, None]
        low = low * phases[..., t.n_high :].unflatten(-1, (t.n_variants, 1, t.n_low))
    return high, low


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
    rows, columns = (n_circuits, t.n_high, t.n_low), (n_circuits * t.n_variants, -1, t.n_low)
    states = [t.start.expand(rows), state.view(rows)]
    for to_high, to_low in zip(high.unbind(0)[1:], low.unbind(0)[1:], strict=True):
        state = torch.bmm(torch.bmm(to_high, states[-1]).view(columns), to_low)
        states.append(state.view(rows))
    squared = torch.view_as_real(state).square().sum(-1) if state.is_complex() else state.square()
    p = squared.view(n_circuits, t.n_variants, -1, t.n_low).transpose(1, 2).reshape(n_circuits, -1)
    return p, (high, low, states)


def backward(angles: Tensor, kept: Kept, grad: Tensor, axes: tuple[str, ...]) -> Tensor:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N).

    Only the adjoint state travels back. R_X and R_Y generators commute with their own rotations, so they are applied
    before the layer, where they act on one qubit each; those of R_Z are diagonal after it.
    """
    n_circuits, depth = angles.shape[:2]
    t = _tables(angles, axes)
    high, low, states = kept
    rows, columns = (n_circuits, t.n_high, t.n_low), (n_circuits * t.n_variants, -1, t.n_low)
    spread = (grad * 2).view(n_circuits, -1, t.n_variants, t.n_low).transpose(1, 2)
    adjoint = (states[-1].view(spread.shape) * spread).reshape(rows)
    after, before = [], []
    for to_high, to_low in zip(reversed(high.mH.unbind(0)), reversed(low.mH.unbind(0)), strict=True):
        after.append(adjoint)
        adjoint = torch.bmm(to_high, torch.bmm(adjoint.view(columns), to_low).view(rows))
        before.append(adjoint)
    shape = (depth * n_circuits, t.n_high, t.n_low)
    inputs, adjoints = torch.stack(states[:-1]).view(shape), torch.stack(before[::-1]).view(shape)
    of_high, of_low = torch.bmm(adjoints.conj(), inputs.mT).flatten(1), torch.bmm(adjoints.mH, inputs).flatten(1)
    if of_high.is_complex():
        of_high, of_low = (m.real if axes[0] == "y" else m.imag for m in (of_high, of_low))
    grads = torch.cat((of_high @ t.high_generators, of_low @ t.low_generators), -1)  # (L * C, N)
    if "z" in axes:
        overlap = (torch.stack(after[::-1]).conj() * torch.stack(states[1:])).imag
        grads = torch.stack((grads, overlap.reshape(depth * n_circuits, -1) @ t.z_generators), 1)
    return grads.view(depth, n_circuits, len(axes), -1).transpose(0, 1)
