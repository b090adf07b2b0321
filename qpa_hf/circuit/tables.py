"""Constant index and sign tables of the simulation, made once for each size and device.

Qubit 0 is the most significant bit. The chain of CNOTs is a prefix XOR: it moves amplitude y ^ (y >> 1) to y.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


def bits_of(index: Tensor, n_bits: int) -> Tensor:
    """Return the bits of each index, most significant first, shape (..., n_bits)."""
    return (index.unsqueeze(-1) >> torch.arange(n_bits - 1, -1, -1)) & 1


def _ry_signs(i: Tensor, j: Tensor, n_bits: int) -> Tensor:
    """Return the sign of entry (i, j) of a Kronecker product of R_Y: minus for each bit that is 0 in i and 1 in j."""
    return (1 - 2 * (bits_of(~i & j, n_bits).sum(-1) & 1)).to(torch.float32)


class GroupTables(NamedTuple):
    """Tables of one group of g qubits."""

    factors: Tensor  # (2**g, g) index into a group's [cos..., sin...] for each pattern of flipped bits
    flips: Tensor  # (2**g * 2**g,) i ^ j
    signs: Tensor  # (2**g, 2**g) signs of a product of R_Y
    y_generators: Tensor  # (4**g, g) entries of -i/2 Y on each qubit, which are real
    x_generators: Tensor  # (4**g, g) entries of 1/2 X on each qubit


def _group(rows: Tensor, columns: Tensor, n_bits: int, generator_order: Tensor, device: torch.device) -> GroupTables:
    i, j = rows[:, None], columns[None, :]
    size = 2**n_bits
    patterns = bits_of(torch.arange(size), n_bits)
    x, y = generator_order[:, None], generator_order[None, :]
    differ = bits_of(x ^ y, n_bits)
    on_qubit = (differ.sum(-1, keepdim=True) == 1) & (differ == 1)  # (size, size, n_bits)
    half = on_qubit.to(torch.float32) / 2
    sign = (2 * bits_of(x.expand(size, size), n_bits) - 1).to(torch.float32)
    tables = GroupTables(
        factors=torch.arange(n_bits) + patterns * n_bits,
        flips=(i ^ j).flatten(),
        signs=_ry_signs(i, j, n_bits),
        y_generators=(half * sign).flatten(0, 1),
        x_generators=half.flatten(0, 1),
    )
    return GroupTables(*(table.to(device) for table in tables))


@lru_cache(maxsize=64)
def group_tables(n_bits: int, device: torch.device) -> GroupTables:
    """Return the tables of a group of `n_bits` qubits in natural order."""
    order = torch.arange(2**n_bits)
    return _group(order, order, n_bits, order, device)


@lru_cache(maxsize=64)
def z_signs(n_bits: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the eigenvalues of Z on each qubit of a group, (2**g, g)."""
    return (1 - 2 * bits_of(torch.arange(2**n_bits), n_bits)).to(device, dtype)


class FoldedTables(NamedTuple):
    """Tables of a layer in two groups of qubits, A high and B low basis states, with V variants of the low matrix.

    Each group is two halves: a layer's matrix is their Kronecker product with its rows in another order.
    """

    n_variants: int
    halves: tuple[int, int, int, int]  # basis states of each half: A = first * second, B = third * fourth
    one: Tensor  # (1,) pads the products of shorter halves
    factors: Tensor  # (g * n,) indices into the entries of single rotations; their products over g make the 4 halves
    high_rows: Tensor  # (A,) the order of the high matrix' rows
    low_rows: Tensor  # (V * B,) the order of the low matrices' rows
    start: Tensor  # (1, A, B) the state |0...0>
    high_generators: Tensor  # (A * A, N - b)
    low_generators: Tensor  # (B * B, b)
    z_turns: Tensor  # (N, A + V * B) minus the eigenvalues of Z on each row
    z_generators: Tensor  # (2**N, N) the eigenvalues of Z, in the order in which the states are kept


def _factors(halves: list[list[int]], n_qubits: int, axis: str) -> Tensor:
    """Return which entries of single rotations make up each entry of the halves' matrices.

    A single rotation's entries lie as [cos..., sin..., -sin..., 1] for R_Y and as [cos..., -i sin..., 1] for R_X.
    """
    width = max(len(qubits) for qubits in halves)
    parts = []
    for qubits in halves:
        size = 2 ** len(qubits)
        index = torch.arange(size)
        i, j = bits_of(index[:, None].expand(size, size), len(qubits)), bits_of(index.expand(size, size), len(qubits))
        kind = (i + 2 * (1 - i)) * (i ^ j) if axis == "y" else i ^ j  # 0 on the diagonal, 1 and 2 beside it
        part = torch.full((size, size, width), (3 if axis == "y" else 2) * n_qubits)  # the 1
        part[..., : len(qubits)] = torch.tensor(qubits, dtype=torch.int64) + n_qubits * kind
        parts.append(part.flatten(0, 1))
    return torch.cat(parts).t().flatten()


@lru_cache(maxsize=64)
def folded_tables(n_qubits: int, axes: tuple[str, ...], dtype: torch.dtype, device: torch.device) -> FoldedTables:
    """Return the tables of a two-group layer with its CNOT chains folded into its matrices.

    One chain moves amplitude y ^ (y >> 1) to y, two move y ^ (y >> 2). What reaches the low group then depends on the
    last one or two high bits: each value of them has its own low matrix, and the high rows are kept ordered by them,
    which is the natural order with these qubits in front.
    """
    a = n_qubits // 2
    b, shift = n_qubits - a, min(len(axes), a)
    n_high, n_low, n_variants = 2**a, 2**b, 2**shift
    order = torch.arange(n_high).view(-1, n_variants).t().flatten()
    place = torch.empty_like(order).index_put_((order,), torch.arange(n_high))
    low = torch.arange(n_low)
    joint = (torch.arange(n_variants)[:, None] << b) | low  # (V, B)
    qubits = [*range(a - shift, a), *range(a - shift)]
    halves = [qubits[: a // 2], qubits[a // 2 :], [*range(a, a + b // 2)], [*range(a + b // 2, n_qubits)]]
    # R_Z stands between the two chains, so its eigenvalues are those at y ^ (y >> 1).
    z_turns = torch.zeros(n_qubits, n_high + n_variants * n_low)
    z_turns[:a, :n_high] = (2 * bits_of(order ^ (order >> 1), a) - 1).t()
    z_turns[a:, n_high:] = (2 * bits_of((joint ^ (joint >> 1)) & (n_low - 1), b) - 1).flatten(0, 1).t()
    y = ((order[:, None] << b) | low).flatten()
    start = torch.zeros(1, n_high, n_low)
    start[0, 0, 0] = 1
    of_high, of_low = _group(order, order, a, order, device), _group(low, low, b, low, device)
    # Twice the generators: the other factor of 2 is that of the square in the probabilities.
    generators = [2 * (g.y_generators if axes[0] == "y" else g.x_generators) for g in (of_high, of_low)]
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return FoldedTables(
        n_variants,
        halves=tuple(2 ** len(half) for half in halves),
        one=torch.ones(1, dtype=dtype, device=device),
        factors=_factors(halves, n_qubits, axes[0]).to(device),
        high_rows=place[order ^ (order >> len(axes))].to(device),
        low_rows=((joint ^ (joint >> len(axes))) & (n_low - 1)).flatten().to(device),
        start=start.to(device, dtype if axes == ("y",) else complex_dtype),
        high_generators=generators[0].to(device, dtype),
        low_generators=generators[1].to(device, dtype),
        z_turns=z_turns.to(device, dtype),
        z_generators=(1 - 2 * bits_of(y ^ (y >> 1), n_qubits)).to(device, dtype),
    )  # fmt: skip


class ChainTables(NamedTuple):
    """The chain of CNOTs on states kept as (2**a, 2**b), rows and columns: no index is as long as the state."""

    rows: Tensor  # (2**a,) the row from which each row comes
    columns: Tensor  # (2, 2**b) the column from which each column comes, in even and in odd new rows
    inverse_rows: Tensor  # (2**a,)
    inverse_columns: Tensor  # (2, 2**b), again in even and in odd rows of the state after the chain


def _prefix_xor(index: Tensor, n_bits: int) -> Tensor:
    shift = 1
    while shift < n_bits:
        index = index ^ (index >> shift)
        shift *= 2
    return index


@lru_cache(maxsize=64)
def chain_tables(n_qubits: int, device: torch.device) -> ChainTables:
    """Return the tables of the chain and its inverse; a = n_qubits // 2.

    Rows and columns meet in one CNOT only: the last bit of the new row flips the first bit of the old column, and
    with it, for the inverse, all bits of the new column.
    """
    a = n_qubits // 2
    b = n_qubits - a
    row, column, is_odd = torch.arange(2**a), torch.arange(2**b), torch.arange(2)[:, None]
    tables = ChainTables(
        rows=row ^ (row >> 1),
        columns=column ^ (column >> 1) ^ (is_odd << (b - 1)),
        inverse_rows=_prefix_xor(row, a),
        inverse_columns=_prefix_xor(column, b) ^ (is_odd * (2**b - 1)),
    )
    return ChainTables(*(table.to(device) for table in tables))
