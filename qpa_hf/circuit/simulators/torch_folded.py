"""Few qubits: two matrix products a layer with the CNOT chains folded in, all angle gradients from a few more.

A state is a matrix S whose rows are the states of the high half of the qubits and whose columns are those of the low
half, so that a layer of rotations is A S B^T. The chain only permutes what comes out, and a permuted product is the
product of permuted matrices: nothing is left to be gathered.

For N = 2 both halves are one qubit. CNOT exchanges the columns of row 1, so that row 0 is multiplied by B and row 1 by
B with its two rows exchanged: two variants of the low matrix, which the high qubit chooses.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.simulators.tables import (
    COMPLEX,
    QUARTER,
    basis_states,
    generators,
    has_tables,
    moved,
    wave_products,
    wave_sums,
)

if TYPE_CHECKING:
    from qpa_hf.circuit.simulators.shapes import Angles, Probabilities

# As timed: beyond, the matrices of all layers and circuits outgrow the cache, and smaller groups of qubits win.
FEW_QUBITS = 11
MAX_QUBITS = 12
MAX_NUMBERS = 2**15
STATES_PER_LAYER = {1: 17, 2: 22}  # by rotations a layer: its matrices outweigh the states it keeps

Kept = tuple[Tensor, Tensor, Tensor, Tensor]  # high and low matrices of all layers, states, room for adjoint states


class Tables(NamedTuple):
    """Constants of a layer in two groups of qubits, A high and B low basis states, with V variants of the low matrix.

    High states are kept with their bits reversed, so that those that choose the variant come first. A layer's matrix
    is the Kronecker product of two parts. Its rows are moved by the chain, so a part has more rows of its own where
    that depends on another part's bits.
    """

    n_variants: int
    sums: Tensor  # (R * N, waves + phases)
    shifts: Tensor  # (waves + phases,)
    entries: Tensor  # (waves, entries of the four parts)
    shapes: list[tuple[int, ...]]  # of the parts, to be multiplied in pairs
    start: Tensor  # (1, A, B) the state |0...0>
    reversal: Tensor  # (A,)
    high_generators: Tensor  # (a, A * A)
    low_generators: Tensor  # (b, B * B)
    z_generators: Tensor  # (2**N, N) the eigenvalues of Z, in the order in which the states are kept


def _phases(qubits: list[int], row_qubits: list[int], n_qubits: int, axis: str) -> tuple[Tensor, Tensor]:
    """Return sums, (N, 2 * rows), and shifts, (2 * rows,), of the cosine and sine of each row's phase.

    R_Z stands between the two chains, so its eigenvalues are those at y ^ (y >> 1). R_X is R_Y between two diagonals,
    i to the number of ones: states are kept with that phase, and a row turns by what the chains change in it.
    """
    # The eigenvalue of R_Z is exp(-i a / 2) for a bit of 0 and exp(i a / 2) for 1: a sum of half angles with signs.
    sums = torch.zeros(n_qubits, 2 ** len(row_qubits))
    sums[qubits] = (moved(qubits, row_qubits, 1) - 0.5).t()
    ones = (moved(qubits, row_qubits, n_qubits) - moved(qubits, row_qubits, 2)).sum(-1) * (axis == "x")
    shifts = torch.stack((ones + 1, ones), 1).flatten() * torch.tensor(QUARTER, dtype=torch.float64)
    return sums.repeat_interleave(2, 1), shifts


def _parts(high: list[int], low: list[int], shift: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return the parts' qubits and the qubits that tell their rows apart."""
    # Four parts of about N / 4 qubits: their tables are small, and one outer product makes each of the two matrices.
    parts = [high[: len(high) // 2], high[len(high) // 2 :], low[: len(low) // 2], low[len(low) // 2 :]]
    above = high[:shift] if len(parts[2]) < shift else []
    rows = [parts[0] + parts[1][:shift], parts[1], high[:shift] + parts[2], above + parts[2][-shift:] + parts[3]]
    return parts, rows


@lru_cache(maxsize=64)
def tables(n_qubits: int, axes: tuple[str, ...], dtype: torch.dtype, device: torch.device) -> Tables:
    """Return the constants.

    What one chain or two bring into the low group depends on the last one or two high bits: each value of them has its
    own low matrix.
    """
    # A layer of two rotations has two chains, which are one shift by two bits once R_Z has been moved between them.
    shift = len(axes)
    a = n_qubits // 2
    b = n_qubits - a
    high, low = list(range(a - 1, -1, -1)), list(range(a, n_qubits))
    parts, rows = _parts(high, low, shift)
    entries = [
        wave_products(moved(part, row, shift), basis_states(len(part))) for part, row in zip(parts, rows, strict=True)
    ]
    sums, shifts = (torch.cat(x, -1) for x in zip(*(wave_sums(part, n_qubits) for part in parts), strict=True))
    if "z" in axes:
        turns = [_phases(high, high, n_qubits, axes[0]), _phases(low, high[:shift] + low, n_qubits, axes[0])]
        sums = torch.block_diag(sums, torch.cat([turn[0] for turn in turns], 1))
        shifts = torch.cat((shifts, *(turn[1] for turn in turns)))
    first, second, third, fourth = (2 ** len(part) for part in parts)
    # How many values the bits have that more than one part depends on.
    n_variants, of_second, of_third = (2 ** len(qubits[:shift]) for qubits in (high, parts[1], parts[2]))
    start = torch.zeros(1, 2**a, 2**b)
    start[0, 0, 0] = 1

    def real(table: Tensor) -> Tensor:
        return table.to(device, dtype).contiguous()

    return Tables(
        n_variants,
        real(sums),
        real(shifts),
        real(torch.block_diag(*entries)),
        shapes=[
            (first, of_second, 1, first, 1),
            (1, of_second, second // of_second, 1, second),
            (n_variants, third // of_third, of_third, 1, third, 1),
            (2 ** len(rows[3]) // (of_third * fourth), 1, of_third, fourth, 1, fourth),
        ],
        start=start.to(device, dtype if axes == ("y",) else COMPLEX[dtype]),
        reversal=(basis_states(a) << torch.arange(a)).sum(-1).to(device),
        high_generators=real(generators(a, "y").flip(0)),
        low_generators=real(generators(b, "y")),
        z_generators=real(1 - 2 * moved(range(n_qubits), high + low, 1)),
    )  # fmt: skip


def _matrices(angles: Tensor, axes: tuple[str, ...], t: Tables) -> tuple[Tensor, Tensor]:
    """Return the layers' matrices, (L, C, A, A) and (L, C * V, B, B).

    The low matrices multiply from the right, so they are transposed.
    """
    n_circuits, depth = angles.shape[:2]
    n_high, n_low = t.start.shape[1:]
    # All entries of all layers at once: sums of angles, their sines, and what each sine contributes to each entry.
    rows = angles.transpose(0, 1).reshape(depth * n_circuits, -1)
    waves = torch.addmm(t.shifts, rows, t.sums).sin_()
    entries = torch.mm(waves[:, : len(t.entries)], t.entries)
    first, second, third, fourth = (
        part.unflatten(1, shape)
        for part, shape in zip(entries.split([math.prod(shape) for shape in t.shapes], 1), t.shapes, strict=True)
    )
    high, low = (first * second).view(-1, n_high, n_high), (third * fourth).view(len(rows), -1, n_low)
    if "z" in axes:  # diagonal: it scales the rows
        phases = torch.view_as_complex(waves[:, len(t.entries) :].unflatten(1, (-1, 2))).unsqueeze(-1)
        high, low = high * phases[:, :n_high], low * phases[:, n_high:]
    return high.view(depth, n_circuits, n_high, n_high), low.view(depth, -1, n_low, n_low).mT


def _views(states: Tensor, n_variants: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return each state as the high matrices take it, (C, A, B), and as the low ones do, (C * V, A / V, B)."""
    # The bits that choose a variant come first in the high index, so both are views of the same memory.
    steps, n_circuits, _, n_low = states.shape
    columns = states.view(steps, n_circuits * n_variants, -1, n_low)
    return list(states.unbind(0)), list(columns.unbind(0))


def can(ansatz: Ansatz, n_qubits: int, n_circuits: int) -> bool:
    """Return whether there are tables for the ansatz and few numbers; R_X alone has a form of its own."""
    # R_X is diagonal in the Hadamard basis, which is faster at any size: see `torch_walsh`.
    n_numbers = n_circuits * 2**n_qubits * (1 if ansatz.is_real else 2)
    is_small = n_qubits <= FEW_QUBITS or (n_qubits <= MAX_QUBITS and n_numbers <= MAX_NUMBERS)
    return has_tables(ansatz) and ansatz.rotations != ("x",) and is_small


def n_arrays(ansatz: Ansatz, depth: int, n_qubits: int, n_circuits: int) -> int:
    """Return the memory of a forward and a backward pass, in arrays of 2**n_qubits real numbers."""
    return n_circuits * (STATES_PER_LAYER[len(ansatz.rotations)] * depth * (1 if ansatz.is_real else 2) + 3)


def forward(angles: Angles, ansatz: Ansatz) -> tuple[Probabilities, Kept]:
    """Return the probabilities (C, 2**N) and what the backward pass needs.

    Args:
        angles: the rotation angles in radians, (C, L, R, N).
        ansatz: an ansatz that this form `can` simulate.
    """
    n_circuits, depth, _, n_qubits = angles.shape
    axes = ansatz.rotations
    t = tables(n_qubits, axes, angles.dtype, angles.device)
    high, low = _matrices(angles, axes, t)
    # |0...0>, the state after each layer, and room for half a layer; the same again for the adjoint states.
    states, adjoints = high.new_empty(2, depth + 2, n_circuits, *t.start.shape[1:]).unbind(0)
    rows, columns = _views(states, t.n_variants)
    rows[0].copy_(t.start)
    # The first layer acts on |0...0>: only the first columns of its matrices matter.
    torch.mul(high[0, :, :, :1].reshape(len(columns[0]), -1, 1), low[0, :, :1], out=columns[1])
    steps = zip(high.unbind(0)[1:], low.unbind(0)[1:], rows[1:-2], columns[2:-1], strict=True)
    for to_high, to_low, state, out in steps:
        torch.bmm(to_high, state, out=rows[-1])
        torch.bmm(columns[-1], to_low, out=out)
    squared = torch.view_as_real(rows[-2]).square().sum(-1) if states.is_complex() else rows[-2].square()
    return squared.index_select(1, t.reversal).view(n_circuits, -1), (high, low, states, adjoints)


def backward(angles: Angles, kept: Kept, grad: Probabilities, ansatz: Ansatz) -> Angles:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N).

    Only the adjoint state, conjugated, travels back. R_Y generators commute with their own rotations, so they are
    applied before the layer, where they act on one qubit each; those of R_Z are diagonal after it.
    """
    n_circuits, depth, n_rotations, n_qubits = angles.shape
    axes = ansatz.rotations
    t = tables(n_qubits, axes, angles.dtype, angles.device)
    high, low, states, adjoints = kept
    rows, columns = _views(adjoints, t.n_variants)
    spread = grad.view(rows[0].shape).index_select(1, t.reversal)
    torch.mul(states[-2], spread, out=rows[-2])
    if adjoints.is_complex():
        rows[-2].conj_physical_()
    steps = zip(high.mT.unbind(0)[::-1], low.mT.unbind(0)[::-1], columns[-2:0:-1], rows[-3::-1], strict=True)
    for to_high, to_low, adjoint, out in steps:
        torch.bmm(adjoint, to_low, out=columns[-1])
        torch.bmm(to_high, rows[-1], out=out)
    # The slope of an angle is <adjoint| G |state> before the layer. G acts on one qubit, so that all slopes are read
    # from the overlaps of the high basis states, summed over the low ones, and the other way round.
    before, inputs = adjoints[:-2].flatten(0, 1), states[:-2].flatten(0, 1)  # (L * C, A, B)
    of_high, of_low = torch.bmm(before, inputs.mT).flatten(1), torch.bmm(before.mT, inputs).flatten(1)
    if adjoints.is_complex():
        of_high, of_low = of_high.real, of_low.real
    grads = angles.new_empty(depth * n_circuits, n_rotations, n_qubits)
    n_high = len(t.high_generators)
    torch.mm(of_high, t.high_generators.mT, out=grads[:, 0, :n_high])
    torch.mm(of_low, t.low_generators.mT, out=grads[:, 0, n_high:])
    if "z" in axes:
        overlap = (adjoints[1:-1] * states[1:-1]).imag.reshape(depth * n_circuits, -1)
        torch.mm(overlap, t.z_generators, out=grads[:, 1])
    return grads.view(depth, n_circuits, n_rotations, n_qubits).transpose(0, 1)
