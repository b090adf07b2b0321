"""R_X + CNOT: one product of phases and one Walsh-Hadamard transform, whatever the depth.

The chain turns strings of X into strings of X, so all rotations commute once the chains are moved to the far right,
where they leave |0...0> alone. In the Hadamard basis the whole circuit is then diagonal.

For N = 2 and one layer with angles a and b, X on qubit 0 becomes XX behind the chain, and X on qubit 1 stays. Basis
state s then has the phase -(a * (-1)^(s0 + s1) + b * (-1)^s1) / 2, and one transform of the four phase factors gives
the amplitudes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.simulators.chain import chain_target
from qpa_hf.circuit.simulators.tables import bits_of

if TYPE_CHECKING:
    from jaxtyping import Int

    from qpa_hf.circuit.simulators.shapes import Angles, Probabilities

GROUP_SIZE = 7  # Hadamard matrices of 128 x 128: two products up to 14 qubits
ARRAYS = 14  # of a circuit


@lru_cache(maxsize=64)
def _hadamard(n_bits: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the symmetric sign matrix over 2**n_bits, (2**g, 2**g)."""
    # Sylvester's matrix: entry (i, j) is -1 where i and j have an odd number of ones in common.
    index = torch.arange(2**n_bits)
    signs = 1 - 2 * (bits_of(index[:, None] & index, n_bits).sum(-1) & 1)
    return (signs / 2**n_bits).to(device, dtype)


@lru_cache(maxsize=64)
def strings(depth: int, n_qubits: int) -> Int[Tensor, " n_angles"]:
    """Return what each angle's rotation flips once the chains are moved to the far right, as bits, (L * N,)."""
    string = 1 << torch.arange(n_qubits - 1, -1, -1)  # (N,) the X of each qubit
    # A rotation passes the chain of its own layer and those of all later layers, so the last layer passes one.
    found: list[Tensor] = []
    for _ in range(depth):
        string = chain_target(string, n_qubits)
        found.insert(0, string)  # the first layer passes all chains
    return torch.cat(found)


@lru_cache(maxsize=32)
def _signs(depth: int, n_qubits: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each angle's sign on every basis state as a product of two: (2**a, L * N) and (L * N, 2**b)."""
    # The parity of two halves is the product of their signs, so that the tables have 2**(N/2) rows and not 2**N.
    flat = strings(depth, n_qubits)
    low_bits = n_qubits - n_qubits // 2
    halves = []
    for n_bits, part in ((n_qubits // 2, flat >> low_bits), (low_bits, flat & (2**low_bits - 1))):
        index = torch.arange(2**n_bits)
        parity = bits_of(index[:, None] & part, n_bits).sum(-1) & 1
        halves.append((1 - 2 * parity).to(device, dtype))
    return halves[0], halves[1].t().contiguous()


def _transform(x: Tensor, n_qubits: int) -> Tensor:
    """Return the Walsh-Hadamard transform of each row divided by its length, the shape kept."""
    # A transform over N bits is one over each group of bits after the other; each is a product with a small matrix.
    n_groups = -(-n_qubits // GROUP_SIZE)
    for group in range(n_groups):
        size = (n_qubits + group) // n_groups
        matrix = _hadamard(size, x.dtype, x.device)
        rows = x.reshape(-1, 2**size, 2 ** (n_qubits - size))
        # The leading group goes behind the others; after all groups the order is back.
        rows = torch.bmm(rows.transpose(1, 2), matrix.expand(rows.shape[0], -1, -1))
        x = rows.view(x.shape)
    return x


def can(ansatz: Ansatz, n_qubits: int, n_circuits: int) -> bool:
    """Return whether a layer is R_X and the chain of CNOTs."""
    return ansatz.rotations == ("x",) and ansatz.is_cnot_chain


def n_arrays(ansatz: Ansatz, depth: int, n_qubits: int, n_circuits: int) -> int:
    """Return the memory of a forward and a backward pass, in arrays of 2**n_qubits real numbers."""
    return n_circuits * ARRAYS


def forward(angles: Angles, ansatz: Ansatz) -> tuple[Probabilities, tuple[Tensor, Tensor]]:
    """Return the probabilities (C, 2**N), the final state and the phases, both (C, 2, 2**N): real and imaginary.

    Args:
        angles: the rotation angles in radians, (C, L, 1, N).
        ansatz: an ansatz that this form `can` simulate.
    """
    n_circuits, depth, _, n_qubits = angles.shape
    # Phases over (high bits, low bits): the sum over all angles is one product of matrices.
    high, low = _signs(depth, n_qubits, angles.dtype, angles.device)
    weighted = high * (angles.reshape(n_circuits, 1, -1) * -0.5)  # (C, 2**a, L * N)
    phase = (weighted @ low).view(n_circuits, -1)  # (C, 2**N)
    wave = torch.stack((phase.cos(), phase.sin()), 1)  # (C, 2, 2**N)
    state = _transform(wave, n_qubits)
    return state.square().sum(1), (state, wave)


def backward(angles: Angles, kept: tuple[Tensor, Tensor], grad: Probabilities, ansatz: Ansatz) -> Angles:
    """Return the gradient of the angles (C, L, 1, N), given that of the probabilities (C, 2**N)."""
    n_circuits, depth, _, n_qubits = angles.shape
    state, wave = kept
    high, low = _signs(depth, n_qubits, angles.dtype, angles.device)
    of_wave = _transform(state * grad.unsqueeze(1), n_qubits)
    # A half turn less and a factor of two more: the phases carry -1/2, the square 2.
    of_phase = of_wave[:, 0] * wave[:, 1] - of_wave[:, 1] * wave[:, 0]  # (C, 2**N)
    square = of_phase.view(n_circuits, high.shape[0], -1)
    return ((square @ low.t()) * high).sum(1).view(angles.shape)
