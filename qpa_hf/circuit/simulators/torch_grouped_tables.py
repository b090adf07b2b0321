"""Constants of a circuit whose qubits stand in groups.

The chain of CNOTs moves whole blocks of amplitudes: within the last group, states are kept at the place from which the
chain would take them, and the columns of the group's next matrix are in that order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from qpa_hf.circuit.simulators.chain import chain_source, chain_target
from qpa_hf.circuit.simulators.tables import (
    COMPLEX,
    basis_states,
    bits_of,
    generators,
    moved,
    wave_products,
    wave_sums,
)

GROUP_SIZE = 5  # matrices of 32 x 32 keep the matrix units busy and cost least per amplitude, as timed


class Tables(NamedTuple):
    """Constants of a circuit whose qubits stand in groups, each of k basis states."""

    sizes: list[int]  # k
    sums: Tensor  # (N, waves)
    shifts: Tensor  # (waves,)
    entries: list[Tensor]  # (the group's waves, k * k)
    frames: list[Tensor]  # (k * k,) by what R_X differs from R_Y
    generators: list[Tensor]  # (the group's qubits, k * k)
    blocks: Tensor  # (n_blocks,) the block of amplitudes from which each block comes
    inverse_blocks: Tensor  # (n_blocks,)
    places: Tensor  # (k, k) permutes the last group from the places where it is kept into the natural order


class Phases(NamedTuple):
    """Constants of a layer of R_Z, moved before the two chains between which it stands.

    There its eigenvalues are parities of all bits up to the qubit's. With the basis states as H rows and B columns,
    those of the columns' qubits change their sign with the row's parity.
    """

    sums: Tensor  # (N, H + 2 * B) for the phases of rows, of columns in even and of columns in odd rows
    parities: Tensor  # (H,)
    of_rows: Tensor  # (H, n_high) eigenvalues
    of_columns: Tensor  # (B, n_low) eigenvalues in even rows


def _groups(n_qubits: int) -> list[range]:
    # N = 7: [0, 1, 2] and [3, 4, 5, 6].
    n_groups = -(-n_qubits // GROUP_SIZE)
    bounds = [i * n_qubits // n_groups for i in range(n_groups + 1)]  # the last group is never smaller than another
    return [range(low, high) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]


def _blocks(n_bits: int, shift: int) -> tuple[Tensor, Tensor]:
    """Return the block that the chains move to each block, and its inverse, both (2**n_bits,)."""
    index = torch.arange(2**n_bits, dtype=torch.int32)  # there may be many
    return chain_source(index, shift), chain_target(index, n_bits, shift)


@lru_cache(maxsize=8)
def tables(n_qubits: int, axes: tuple[str, ...], dtype: torch.dtype, device: torch.device) -> Tables:
    """Return the constants."""
    groups = _groups(n_qubits)
    shift = len(axes)
    n_last = len(groups[-1])
    rows = [basis_states(len(group)) for group in groups]
    places = moved(groups[-1], groups[-1], shift) @ (1 << torch.arange(n_last - 1, -1, -1))  # where y is kept
    columns = [*rows[:-1], rows[-1][places.argsort()]]
    # R_X is R_Y between two diagonals, i to the number of ones.
    ones = [(y.sum(-1) - x.sum(-1)[:, None]).flatten() for x, y in zip(rows, columns, strict=True)]
    quarters = torch.tensor([1, 1j, -1, -1j]).to(device, COMPLEX[dtype])
    sums, shifts = (torch.cat(x, -1) for x in zip(*(wave_sums(group, n_qubits) for group in groups), strict=True))
    # Within the last group only the first bits depend on other groups'.
    blocks, inverse_blocks = _blocks(n_qubits - n_last + min(shift, n_last), shift)
    return Tables(
        sizes=[len(x) for x in rows],
        sums=sums.to(device, dtype),
        shifts=shifts.to(device, dtype),
        entries=[wave_products(x, y).to(device, dtype) for x, y in zip(rows, columns, strict=True)],
        frames=[quarters[n.to(device) % 4] for n in ones],
        generators=[generators(len(group), axes[0]).to(device, dtype) for group in groups],
        blocks=blocks.to(device),
        inverse_blocks=inverse_blocks.to(device),
        places=torch.eye(2**n_last)[places].t().to(device, dtype),
    )


@lru_cache(maxsize=8)
def phases(n_qubits: int, dtype: torch.dtype, device: torch.device) -> Phases:
    """Return the constants of a layer of R_Z."""
    n_high = n_qubits // 2
    # A bit of the chain's target is the parity of all bits up to it.
    rows, columns = (bits_of(chain_target(torch.arange(2**n), n), n) for n in (n_high, n_qubits - n_high))
    sums = torch.block_diag((rows - 0.5).t(), torch.cat((columns - 0.5, 0.5 - columns)).t())
    parities = basis_states(n_high).sum(-1) & 1
    return Phases(*(x.to(device, dtype) for x in (sums, parities, 1 - 2 * rows, 1 - 2 * columns)))
