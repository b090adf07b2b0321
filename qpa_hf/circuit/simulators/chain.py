"""Where a chain of CNOTs takes basis states: the one place where this is written for torch.

CNOT(q, q+1) for q = 0 .. N-2, in this order, makes of every bit the XOR of all bits up to it, the most significant bit
first: a prefix XOR. Its inverse is the Gray code, y ^ (y >> 1). For N = 2 the chain exchanges |10> and |11>.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Int


def chain_source(index: Int[Tensor, " ..."], n_chains: int = 1) -> Int[Tensor, " ..."]:
    """Return the basis state that chains of CNOTs move to each place: the Gray code for one of them.

    Args:
        index: the basis states, with qubit 0 as the most significant bit.
        n_chains: the number of chains in a row, 1 or 2.

    Example:
        >>> import torch
        >>> chain_source(torch.arange(4))  # new |10> was |11>, and new |11> was |10>
        tensor([0, 1, 3, 2])
    """
    # With s for a shift by one bit, one chain undone is 1 + s; modulo 2 its square is 1 + s^2, one shift by two bits.
    return index ^ (index >> n_chains)


def chain_target(index: Int[Tensor, " ..."], n_bits: int, n_chains: int = 1) -> Int[Tensor, " ..."]:
    """Return the place to which chains of CNOTs move each basis state: the prefix XOR for one of them.

    Args:
        index: the basis states, with qubit 0 as the most significant bit.
        n_bits: the number of bits of each basis state.
        n_chains: the number of chains in a row, 1 or 2.

    Example:
        >>> import torch
        >>> chain_target(torch.tensor([0b100, 0b110]), 3)  # |100> -> |111>, |110> -> |100>
        tensor([7, 4])
    """
    # Each step doubles the number of bits that have been added up, so that log2(n_bits) steps do.
    shift = n_chains
    while shift < n_bits:
        index = index ^ (index >> shift)
        shift *= 2
    return index
