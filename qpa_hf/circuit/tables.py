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
    z_signs: Tensor  # (2**g, g) eigenvalues of Z on each qubit


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
        z_signs=(1 - 2 * patterns).to(torch.float32),
    )
    return GroupTables(*(table.to(device) for table in tables))


@lru_cache(maxsize=64)
def group_tables(n_bits: int, device: torch.device) -> GroupTables:
    """Return the tables of a group of `n_bits` qubits in natural order."""
    order = torch.arange(2**n_bits)
    return _group(order, order, n_bits, order, device)


@lru_cache(maxsize=32)
def folded_tables(n_high: int, n_low: int, device: torch.device) -> tuple[GroupTables, GroupTables]:
    """Return the tables of a two-group layer with the CNOT chain folded into its matrices.

    The high rows are kept even ones first, because the chain flips the low group's first bit in the odd ones: each
    parity has its own low matrix, and a layer is two matrix products. Column and row indices of the low matrix are
    exchanged, since it multiplies from the right; its flips and signs have a leading dimension for the parity.
    """
    order = torch.cat([torch.arange(0, 2**n_high, 2), torch.arange(1, 2**n_high, 2)])
    high = _group(order ^ (order >> 1), order, n_high, order, device)
    low_order = torch.arange(2**n_low)
    flips, signs = [], []
    for parity in (0, 1):
        rows = (low_order ^ (low_order >> 1)) ^ (parity << (n_low - 1))
        flips.append((rows[None, :] ^ low_order[:, None]).flatten())
        signs.append(_ry_signs(rows[None, :], low_order[:, None], n_low))
    low = group_tables(n_low, device)._replace(
        flips=torch.cat(flips).to(device), signs=torch.stack(signs).to(device)
    )
    return high, low


def chain_index(n_qubits: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the chain's permutation and its inverse as int32 indices of shape (2**n_qubits,)."""
    y = torch.arange(2**n_qubits, dtype=torch.int32, device=device)
    inverse = y.clone()
    shift = 1
    while shift < n_qubits:
        inverse ^= inverse >> shift
        shift *= 2
    return y ^ (y >> 1), inverse
