# mypy: disallow-untyped-defs=False
"""R_X or R_Y, then possibly R_Z, gate by gate.

A layer goes through the state twice, for the high half of the qubits and for the low one, in tiles that stay in the
first cache: a tile has neighbours of the other half side by side, so that the rotations of every qubit are vectorized.
The backward pass undoes the gates, beginning with the final state, and nothing is kept of the layers between.

A state is a real array (P, rows, columns), which the high and the low half of the qubits tell apart; P is 1 for a real
ansatz, else 2: real and imaginary part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.simulators import compilers
from qpa_hf.circuit.simulators.numba_jit import compiled, copied, inlined, knows

if TYPE_CHECKING:
    from qpa_hf.circuit.simulators.shapes import Angles, Probabilities

WIDTH = 16  # of a tile: a cache line of float32


@inlined
def _turn(low, high, stride, cos, sin):
    """Rotate the pairs of amplitudes i of `low` and i + stride of `high`."""
    # [[cos, -sin], [sin, cos]] on each pair. Unsigned: a check for negative indices would prevent vectorization.
    base, step, size = np.uint64(0), np.uint64(stride), np.uint64(len(low))
    while base < size:
        for offset in range(stride):
            i = base + np.uint64(offset)
            a, b = low[i], high[i + step]
            low[i] = cos * a - sin * b
            high[i + step] = sin * a + cos * b
        base += step + step


@inlined
def _unturn(low, high, adj_low, adj_high, stride, cos, sin):
    """Undo `_turn` on a state and on its adjoint, by the transpose; return the gradient of the angle."""
    base, step, size = np.uint64(0), np.uint64(stride), np.uint64(len(low))
    total = low.dtype.type(0)
    while base < size:
        for offset in range(stride):
            i = base + np.uint64(offset)
            a, b, adj_a, adj_b = low[i], high[i + step], adj_low[i], adj_high[i + step]
            total += adj_b * a - adj_a * b
            low[i] = cos * a + sin * b
            high[i + step] = cos * b - sin * a
            adj_low[i] = cos * adj_a + sin * adj_b
            adj_high[i + step] = cos * adj_b - sin * adj_a
        base += step + step
    return total


@inlined
def _rotate(tile, cos, sin, is_x):
    """Rotate the qubits of a tile (P, 2**len(cos), width): R_X is R_Y between a real and an imaginary part."""
    flat = tile.reshape(len(tile), -1)
    stride = flat.shape[1] // 2
    for q in range(len(cos)):
        if is_x:
            _turn(flat[0], flat[1], stride, cos[q], -sin[q])
            _turn(flat[1], flat[0], stride, cos[q], sin[q])
        else:
            for p in range(len(flat)):
                _turn(flat[p], flat[p], stride, cos[q], sin[q])
        stride //= 2


@inlined
def _unrotate(tile, adjoint, cos, sin, is_x, grads):
    """Undo `_rotate` on a tile and on its adjoint, and add to the gradients of the angles."""
    flat, adj = tile.reshape(len(tile), -1), adjoint.reshape(len(adjoint), -1)
    stride = flat.shape[1] // 2
    for q in range(len(cos)):
        if is_x:
            grads[q] += _unturn(flat[1], flat[0], adj[1], adj[0], stride, cos[q], sin[q])
            grads[q] -= _unturn(flat[0], flat[1], adj[0], adj[1], stride, cos[q], -sin[q])
        else:
            for p in range(len(flat)):
                grads[q] += _unturn(flat[p], flat[p], adj[p], adj[p], stride, cos[q], sin[q])
        stride //= 2


@inlined
def _chained(i, n_states):
    """Return the basis state to which the chain of CNOTs moves i: a prefix XOR. Its inverse is i ^ (i >> 1)."""
    shift = 1
    while n_states >> shift:
        i ^= i >> shift
        shift *= 2
    return i


@inlined
def _rows_in(state, tile, first, mask):
    """Copy rows of a state to a tile (P, columns, width), from where the chain has moved them; with mask 0 as is."""
    n_rows, n_columns = state.shape[1:]
    for p in range(len(state)):
        square = tile[p]
        for j in range(square.shape[1]):
            row = _chained(first + j, n_rows) if mask else first + j
            # The row's last bit is carried over the boundary into the first bit of the column.
            carried, source = (row & mask & 1) * (n_columns // 2), state[p, row]
            for column in range(n_columns):
                square[column ^ (column >> 1 & mask) ^ carried, j] = source[column]


@inlined
def _rows_out(tile, state, first, mask):
    """Copy back, to where the chain moves rows and columns, or with mask 0 as is."""
    n_rows, n_columns = state.shape[1:]
    for p in range(len(state)):
        square = tile[p]
        for j in range(square.shape[1]):
            row = _chained(first + j, n_rows) if mask else first + j
            carried, target = (row & mask & 1) * (n_columns // 2), state[p, row]
            for column in range(n_columns):
                target[column] = square[column ^ (column >> 1 & mask) ^ carried, j]


@inlined
def _phases(angles):
    """Return R_Z of some qubits on each of their basis states, (2, 2**n); each qubit makes two phases of every one."""
    found = np.empty((2, 1 << len(angles)), angles.dtype)
    found[0, 0], found[1, 0] = 1, 0
    half = angles.dtype.type(0.5)
    size = 1
    for angle in angles:
        cos, sin = np.cos(angle * half), np.sin(angle * half)
        for i in range(size - 1, -1, -1):
            re, im = found[0, i], found[1, i]
            found[0, 2 * i], found[1, 2 * i] = re * cos + im * sin, im * cos - re * sin
            found[0, 2 * i + 1], found[1, 2 * i + 1] = re * cos - im * sin, im * cos + re * sin
        size *= 2
    return found


@inlined
def _shift_phases(state, of_rows, of_columns, sign):
    """Multiply a state by phases, or by their inverses where `sign` is -1."""
    for row in range(state.shape[1]):
        re, im = state[0, row], state[1, row]
        row_re, row_im = of_rows[0, row], of_rows[1, row]
        for column in range(len(re)):
            cos = row_re * of_columns[0, column] - row_im * of_columns[1, column]
            sin = (row_re * of_columns[1, column] + row_im * of_columns[0, column]) * sign
            re[column], im[column] = re[column] * cos - im[column] * sin, im[column] * cos + re[column] * sin


@inlined
def _add_signed(weights, grads):
    """Add to each R_Z's gradient, sums over basis states with the eigenvalues of Z; overwrites `weights`."""
    # The first qubit's sum is the first half less the second; then the halves are added up, and one qubit is gone.
    size = len(weights)
    for q in range(len(grads)):
        size //= 2
        for i in range(size):
            grads[q] += weights[i] - weights[size + i]
            weights[i] += weights[size + i]


@inlined
def _z_gradients(state, adjoint, a, grads):
    of_rows = np.zeros(state.shape[1], state.dtype)
    of_columns = np.zeros(state.shape[2], state.dtype)
    for row in range(state.shape[1]):
        total = state.dtype.type(0)
        for column in range(state.shape[2]):
            overlap = adjoint[0, row, column] * state[1, row, column] - adjoint[1, row, column] * state[0, row, column]
            total += overlap
            of_columns[column] += overlap
        of_rows[row] = total
    _add_signed(of_rows, grads[:a])
    _add_signed(of_columns, grads[a:])


@inlined
def _rotation_layer(state, other, tile, angles, is_x):
    """Rotate all qubits of `state` and write to `other` what the chain makes of it; overwrites `state`."""
    n_rows, width, half = state.shape[1], tile.shape[-1], angles.dtype.type(0.5)
    cos, sin, n_high = np.cos(angles * half), np.sin(angles * half), len(angles) - len(angles) // 2
    _rotate(state, cos[:n_high], sin[:n_high], is_x)
    for first in range(0, n_rows, width):
        _rows_in(state, tile, first, 0)
        _rotate(tile, cos[n_high:], sin[n_high:], is_x)
        _rows_out(tile, other, first, -1)


@inlined
def _phase_layer(state, other, tile, angles):
    """The same for R_Z."""
    n_rows, width, n_high = state.shape[1], tile.shape[-1], len(angles) - len(angles) // 2
    _shift_phases(state, _phases(angles[:n_high]), _phases(angles[n_high:]), angles.dtype.type(1))
    for first in range(0, n_rows, width):
        _rows_in(state, tile, first, 0)
        _rows_out(tile, other, first, -1)


@inlined
def _undo_rotation_layer(states, others, tile, angles, is_x, grads):
    """Undo a layer on a state and its adjoint, and add to the gradients of its angles."""
    n_rows, width, half = states.shape[2], tile.shape[-1], angles.dtype.type(0.5)
    cos, sin, n_high = np.cos(angles * half), np.sin(angles * half), len(angles) - len(angles) // 2
    for first in range(0, n_rows, width):
        for k in range(2):
            _rows_in(states[k], tile[k], first, -1)
        _unrotate(tile[0], tile[1], cos[n_high:], sin[n_high:], is_x, grads[n_high:])
        for k in range(2):
            _rows_out(tile[k], others[k], first, 0)
    _unrotate(others[0], others[1], cos[:n_high], sin[:n_high], is_x, grads[:n_high])


@inlined
def _undo_phase_layer(states, others, tile, angles, grads):
    n_rows, width, n_high = states.shape[2], tile.shape[-1], len(angles) - len(angles) // 2
    for first in range(0, n_rows, width):
        for k in range(2):
            _rows_in(states[k], tile[k], first, -1)
            _rows_out(tile[k], others[k], first, 0)
    _z_gradients(others[0], others[1], n_high, grads)
    of_rows, of_columns = _phases(angles[:n_high]), _phases(angles[n_high:])
    for k in range(2):
        _shift_phases(others[k], of_rows, of_columns, angles.dtype.type(-1))


@compiled
def _forward(angles, is_x, states, p):
    """Fill the last states (C, P, rows, columns), and add to p (C, 2**N), given angles (C, L, R, N)."""
    n_circuits, depth, n_rotations, _ = angles.shape
    _, n_parts, n_rows, n_columns = states.shape
    width = min(WIDTH, n_columns)
    room = np.empty((2, n_parts, n_rows, n_columns), states.dtype)
    tile = np.empty((n_parts, n_columns, width), states.dtype)
    for c in range(n_circuits):
        state, other = room[0], room[1]
        state[:] = 0
        state[0, 0, 0] = 1
        for layer in range(depth):
            _rotation_layer(state, other, tile, angles[c, layer, 0], is_x)
            state, other = other, state
            if n_rotations == 2:
                _phase_layer(state, other, tile, angles[c, layer, 1])
                state, other = other, state
        states[c] = state
        for part in state.reshape(len(state), -1):
            for i in range(len(part)):
                p[c, i] += part[i] * part[i]


@compiled
def _backward(angles, is_x, states, grad, grads):
    """Add to grads (C, L, R, N)."""
    n_circuits, depth, n_rotations, _ = angles.shape
    _, n_parts, n_rows, n_columns = states.shape
    width = min(WIDTH, n_columns)
    room = np.empty((2, 2, n_parts, n_rows, n_columns), states.dtype)
    tile = np.empty((2, n_parts, n_columns, width), states.dtype)
    for c in range(n_circuits):
        both, others = room[0], room[1]  # the state and its adjoint
        both[0] = states[c]
        for p in range(len(states[c])):
            state, adjoint = states[c, p].reshape(-1), both[1, p].reshape(-1)
            for i in range(len(state)):
                adjoint[i] = grad[c, i] * state[i]
        for layer in range(depth - 1, -1, -1):
            if n_rotations == 2:
                _undo_phase_layer(both, others, tile, angles[c, layer, 1], grads[c, layer, 1])
                both, others = others, both
            _undo_rotation_layer(both, others, tile, angles[c, layer, 0], is_x, grads[c, layer, 0])
            both, others = others, both


can = knows
n_arrays = compilers.n_arrays


def forward(angles: Angles, ansatz: Ansatz) -> tuple[Probabilities, Tensor]:
    """Return the probabilities (C, 2**N) and the last states (C, P, rows, columns), given angles (C, L, R, N)."""
    angles, axes = copied(angles), ansatz.rotations
    n_circuits, n_columns, n_states = len(angles), 2 ** (angles.shape[-1] // 2), 2 ** angles.shape[-1]
    states = angles.new_empty(n_circuits, 1 if axes == ("y",) else 2, n_states // n_columns, n_columns)
    p = angles.new_zeros(n_circuits, n_states)
    _forward(angles.numpy(), axes[0] == "x", states.numpy(), p.numpy())
    return p, states


def backward(angles: Angles, states: Tensor, grad: Probabilities, ansatz: Ansatz) -> Angles:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N)."""
    angles = copied(angles)
    grads = torch.zeros_like(angles)
    _backward(angles.numpy(), ansatz.rotations[0] == "x", states.numpy(), grad.numpy(), grads.numpy())
    return grads
