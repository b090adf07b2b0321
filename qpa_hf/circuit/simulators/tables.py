"""What the constant tables of the simulation are made of: bits, waves and generators.

Qubit 0 is the most significant bit. The chain of CNOTs is a prefix XOR: it moves amplitude y ^ (y >> 1) to y, and two
chains move y ^ (y >> 2).

A product of several qubits' R_Y has products of cosines and sines of half angles as entries. These are sums of
*waves*, cosines and sines of sums and differences of half angles (2 cos a cos b = cos(a + b) + cos(a - b), and so on),
so all matrices of a circuit come from one product with a matrix, one sine and another product with a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz

if TYPE_CHECKING:
    from jaxtyping import Float, Int

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
QUARTER = math.pi / 2
LAYERS = (("x",), ("y",), ("x", "z"), ("y", "z"))


def has_tables(ansatz: Ansatz) -> bool:
    """Return whether tables are made for an ansatz: R_X or R_Y, then possibly R_Z, each before a chain of CNOTs."""
    return ansatz.rotations in LAYERS and ansatz.is_cnot_chain


def bits_of(index: Int[Tensor, "*index"], n_bits: int) -> Int[Tensor, "*index n_bits"]:
    """Return the bits of each index, most significant first, shape (..., n_bits)."""
    return (index.unsqueeze(-1) >> torch.arange(n_bits - 1, -1, -1)) & 1


def basis_states(n_bits: int) -> Int[Tensor, "n_states n_bits"]:
    """Return the bits of all basis states in order, (2**n_bits, n_bits)."""
    return bits_of(torch.arange(2**n_bits), n_bits)


def moved(qubits: Sequence[int], row_qubits: Sequence[int], shift: int) -> Int[Tensor, "n_rows n_moved"]:
    """Return the bits of `qubits` in the state that `shift` chains move to each state of `row_qubits`, (rows, g)."""
    # In bits, chain_source of `shift` chains is: each bit XOR the one `shift` places before it, where there is one.
    bits = dict(zip(row_qubits, basis_states(len(row_qubits)).unbind(-1), strict=True))
    found = torch.zeros(2 ** len(row_qubits), len(qubits), dtype=torch.int64)
    for i, qubit in enumerate(qubits):
        found[:, i] = bits[qubit] ^ bits.get(qubit - shift, 0)
    return found


def wave_sums(
    qubits: Sequence[int], n_qubits: int
) -> tuple[Float[Tensor, "n_qubits n_waves"], Float[Tensor, " n_waves"]]:
    """Return the sums of angles, (N, W), and the shifts, (W,), of the waves that make up a product over `qubits`."""
    # For two qubits the waves are the cosines and sines of (a + b) / 2 and of (a - b) / 2. A cosine is taken as a sine
    # a quarter turn ahead, so that one call of sin makes all of them.
    free = max(len(qubits) - 1, 0)  # a common sign of all angles gives the same wave
    signs = 1 - 2 * basis_states(free + 1)[: 2**free]  # the first is always +1
    sums = torch.zeros(n_qubits, 2 * len(signs))
    sums[list(qubits)] = (signs[:, : len(qubits)] * 0.5).repeat_interleave(2, 0).t()
    return sums, torch.tensor([QUARTER, 0], dtype=torch.float64).repeat(len(signs))


def wave_products(
    rows: Int[Tensor, "n_rows n_group"], columns: Int[Tensor, "n_columns n_group"]
) -> Float[Tensor, "n_waves n_entries"]:
    """Return what each wave contributes to each entry of a product of R_Y, shape (W, n_rows * n_columns).

    Args:
        rows: the bits of the g qubits in each row, (n_rows, g).
        columns: the bits of the g qubits in each column, (n_columns, g).
    """
    # For two qubits, entry <00|R_Y R_Y|00> is cos(a/2) cos(b/2): half of cos((a + b) / 2) and half of
    # cos((a - b) / 2). Where i and j differ in a qubit, its cosine is a sine, and negative above the diagonal.
    i, j = (bits.flatten(0, 1) for bits in torch.broadcast_tensors(rows[:, None], columns[None]))
    flips = i ^ j  # sines stand beside the diagonal
    free = max(flips.shape[1] - 1, 0)
    is_minus = basis_states(free + 1)[: 2**free, None, : flips.shape[1]]
    signs = (1 - 2 * ((is_minus * flips).sum(-1) & 1)) * (1 - 2 * ((j & ~i).sum(-1) & 1))  # (W / 2, n_entries)
    # k sines are a product of cosines that is k quarter turns late: cos, sin, -cos, -sin of the sum, by turns.
    turns = flips.sum(-1) & 3  # a sine is a cosine a quarter turn later
    cos, sin = (signs * torch.tensor(pattern)[turns] for pattern in ((1, 0, -1, 0), (0, 1, 0, -1)))
    return torch.stack((cos, sin), 1).flatten(0, 1) / 2**free


def generators(n_bits: int, axis: str) -> Int[Tensor, "n_bits n_entries"]:
    """Return twice the generators of R_Y, or of R_X without their -i, (n_bits, 4**n_bits).

    The other factor of two is that of the square in the probabilities.
    """
    # One qubit: -i Y = [[0, -1], [1, 0]], which takes |0> to |1> and |1> to -|0>. With several qubits each row has one
    # nonzero entry, where row and column differ in this qubit alone.
    bits = basis_states(n_bits)
    differ = bits[:, None] ^ bits[None]
    flips = (differ.sum(-1, keepdim=True) == 1) * differ
    return (flips * (2 * bits[:, None] - 1) if axis == "y" else flips).flatten(0, 1).t()
