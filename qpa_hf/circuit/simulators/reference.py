"""The plain form: any ansatz, gate by gate.

Every fast form is compared with it, and what none of them knows is run by it. Autograd can differentiate its forward
pass; its own backward pass, which gives the same, undoes the gates, so that no state between them is kept.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.simulators.tables import COMPLEX

if TYPE_CHECKING:
    from qpa_hf.circuit.simulators.shapes import Angles, Probabilities

# Peak memory of both passes for one circuit of any depth, as measured.
ARRAYS = 30


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a table that was made in inference mode could not be trained with later
def _entangler(ansatz: Ansatz, n_qubits: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the basis state that the gates move to each place, its sign there, and the inverse move, (2**N,) each."""
    # CNOTs only permute basis states and CZs only change signs, so all gates of a layer are one move and one sign.
    # For N = 2 a chain of CNOTs is the move [0, 1, 3, 2] without signs; one of CZs is the signs [1, 1, 1, -1] without
    # a move.
    index = torch.arange(2**n_qubits)
    source, sign = index, torch.ones_like(index)
    for gate, control, target in ansatz.entangling_gates(n_qubits):
        is_one = index >> (n_qubits - 1 - control) & 1
        target_bit = n_qubits - 1 - target
        if gate == "cnot":
            flipped = index ^ (is_one << target_bit)
            source, sign = source[flipped], sign[flipped]
        else:
            sign = sign * (1 - 2 * (is_one & index >> target_bit))
    return source.to(device), sign.to(device, torch.int8), source.argsort().to(device)


def _rotated(state: Tensor, qubit: int, axis: str, angle: Tensor) -> Tensor:
    """Return states (C, 2**N) of which one qubit is turned about an axis by an angle each, (C,)."""
    # Amplitudes in pairs that differ in this qubit alone: (C, qubits before, the qubit, qubits after).
    zero, one = state.view(len(state), 2**qubit, 2, -1).unbind(2)
    half = angle.view(-1, 1, 1) / 2
    cos, sin = half.cos(), half.sin()
    # exp(-i angle sigma / 2) for the Pauli matrix of the axis: R_X mixes with -i, R_Y is real, R_Z is diagonal.
    if axis == "x":
        turned = (cos * zero - 1j * sin * one, cos * one - 1j * sin * zero)
    elif axis == "y":
        turned = (cos * zero - sin * one, cos * one + sin * zero)
    else:
        turned = (torch.complex(cos, -sin) * zero, torch.complex(cos, sin) * one)
    return torch.stack(turned, 2).view(state.shape)


def can(ansatz: Ansatz, n_qubits: int, n_circuits: int) -> bool:
    """Return True, because every gate of every ansatz has its plain form here."""
    return True


def n_arrays(ansatz: Ansatz, depth: int, n_qubits: int, n_circuits: int) -> int:
    """Return the memory of a forward and a backward pass, in arrays of 2**n_qubits real numbers."""
    return n_circuits * ARRAYS


def forward(angles: Angles, ansatz: Ansatz) -> tuple[Probabilities, Tensor]:
    """Return the probabilities and the last states, both (C, 2**N), given angles (C, L, R, N) in radians."""
    n_circuits, _, _, n_qubits = angles.shape
    source, sign, _ = _entangler(ansatz, n_qubits, angles.device)
    state = torch.zeros(n_circuits, 2**n_qubits, dtype=COMPLEX[angles.dtype], device=angles.device)
    state[:, 0] = 1
    for layer in angles.unbind(1):
        for axis, row in zip(ansatz.rotations, layer.unbind(1), strict=True):
            # One gate at a time, as a textbook has it; the gates of a row commute.
            for qubit, angle in enumerate(row.unbind(1)):
                state = _rotated(state, qubit, axis, angle)
            state = state.index_select(1, source) * sign
    return torch.view_as_real(state).square().sum(-1), state


def backward(angles: Angles, state: Tensor, grad: Probabilities, ansatz: Ansatz) -> Angles:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N)."""
    # With a loss l(p), the adjoint state is dl/dp * state. Both are taken back through the gates one by one; before a
    # rotation U(a) is undone, its angle has the slope 2 Re <adjoint| dU/da U^-1 |state>.
    n_circuits, depth, n_rotations, n_qubits = angles.shape
    _, sign, inverse = _entangler(ansatz, n_qubits, angles.device)
    both = torch.cat([state, state * grad])  # the states, and then their adjoints
    back = -angles.repeat(2, 1, 1, 1)
    half_turn = angles.new_full((n_circuits,), math.pi)
    grads = torch.empty_like(angles, memory_format=torch.contiguous_format)
    for layer, rotation in reversed([(i, k) for i in range(depth) for k in range(n_rotations)]):
        axis = ansatz.rotations[rotation]
        both = (both * sign).index_select(1, inverse)
        for qubit in reversed(range(n_qubits)):
            state, adjoint = both.chunk(2)
            slope = _rotated(state, qubit, axis, half_turn)  # half a turn more is twice a rotation's derivative
            overlap = torch.view_as_real(adjoint) * torch.view_as_real(slope)
            grads[:, layer, rotation, qubit] = overlap.sum((1, 2))
            both = _rotated(both, qubit, axis, back[:, layer, rotation, qubit])
    return grads
