# mypy: disallow-untyped-defs=False
"""A head's circuits on a CPU, compiled by Numba: gate by gate, for as many sentences at a time as stay in the cache.

A state is a real array (2**n_qubits, WIDTH): the sentences lie side by side, so that every gate is vectorized. The
backward pass undoes the gates, beginning with the last states, which are all that is kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpa_hf.circuit.simulators.numba_jit import compiled, inlined
from qpa_hf.heads.scratch import Scratch

MAX_QUBITS = 14  # a state of as many sentences then fits the second cache
WIDTH = 32  # sentences at a time: fewer take more turns, more would waste work in small batches
UPLOAD = -1  # stands for a block's qubits


@inlined
def _product(state, cos, sin):
    """Make of |0...0> what R_Y does with all qubits, (n_qubits, WIDTH) cosines and sines."""
    # Qubit by qubit every amplitude becomes two, from the last one down, so that none is overwritten before it is
    # read.
    state[0] = 1
    size = 1
    for q in range(len(cos)):
        for i in range(size - 1, -1, -1):
            low, high = state[2 * i], state[2 * i + 1]
            source = state[i]
            for j in range(WIDTH):
                a = source[j]
                high[j] = a * sin[q, j]
                low[j] = a * cos[q, j]
        size *= 2


@inlined
def _upload(state, cos, sin):
    """Rotate all qubits, each sentence by angles of its own."""
    stride = len(state)
    for q in range(len(cos)):
        stride //= 2
        for base in range(0, len(state), 2 * stride):
            for i in range(base, base + stride):
                low, high = state[i], state[i + stride]
                for j in range(WIDTH):
                    a, b = low[j], high[j]
                    low[j] = cos[q, j] * a - sin[q, j] * b
                    high[j] = sin[q, j] * a + cos[q, j] * b


@inlined
def _undo_upload(state, adjoint, cos, sin, grads):
    """Undo `_upload` on states and their adjoints, and add to the gradients of the angles (n_qubits, WIDTH).

    The adjoint is half the gradient of the states, and R_Y turns by half its angle: the two factors cancel.
    """
    stride = len(state)
    for q in range(len(cos)):
        stride //= 2
        for base in range(0, len(state), 2 * stride):
            for i in range(base, base + stride):
                low, high, adj_low, adj_high = state[i], state[i + stride], adjoint[i], adjoint[i + stride]
                for j in range(WIDTH):
                    a, b, adj_a, adj_b = low[j], high[j], adj_low[j], adj_high[j]
                    grads[q, j] += adj_b * a - adj_a * b
                    low[j] = cos[q, j] * a + sin[q, j] * b
                    high[j] = cos[q, j] * b - sin[q, j] * a
                    adj_low[j] = cos[q, j] * adj_a + sin[q, j] * adj_b
                    adj_high[j] = cos[q, j] * adj_b - sin[q, j] * adj_a


@inlined
def _block(flat, control, target, cos, sin):
    """Apply CNOT, then R_Y to its target; `control` and `target` are the qubits' strides in `flat`.

    Without a control, where both are the same, it is R_Y alone.
    """
    # Both loops run over the bits around the two qubits, so `i` has 0 in both. Where the control is 1, the CNOT has
    # exchanged the pair: R_Y then finds b in the place of a. Unsigned, so that the inner loop is vectorized.
    c, t = np.uint64(control), np.uint64(target)
    large, small = max(c, t), min(c, t)
    if c == t:
        small, c = t, np.uint64(0)
    outer, size = np.uint64(0), np.uint64(len(flat))
    while outer < size:
        inner = outer
        while inner < outer + large:
            for offset in range(small):
                i = inner + np.uint64(offset)
                a, b = flat[i], flat[i + t]
                flat[i] = cos * a - sin * b
                flat[i + t] = sin * a + cos * b
            if c:
                for offset in range(small):
                    i = inner + c + np.uint64(offset)
                    a, b = flat[i + t], flat[i]
                    flat[i] = cos * a - sin * b
                    flat[i + t] = sin * a + cos * b
            inner += small + small
        outer += large + large


@inlined
def _undo_block(flat, adj, control, target, cos, sin):
    """Undo `_block` on states and their adjoints, half the gradient of the states; return that of the angle."""
    c, t = np.uint64(control), np.uint64(target)
    large, small = max(c, t), min(c, t)
    if c == t:
        small, c = t, np.uint64(0)
    total = flat.dtype.type(0)
    outer, size = np.uint64(0), np.uint64(len(flat))
    while outer < size:
        inner = outer
        while inner < outer + large:
            for offset in range(small):
                i = inner + np.uint64(offset)
                a, b, adj_a, adj_b = flat[i], flat[i + t], adj[i], adj[i + t]
                total += adj_b * a - adj_a * b
                flat[i], flat[i + t] = cos * a + sin * b, cos * b - sin * a
                adj[i], adj[i + t] = cos * adj_a + sin * adj_b, cos * adj_b - sin * adj_a
            if c:
                for offset in range(small):
                    i = inner + c + np.uint64(offset)
                    a, b, adj_a, adj_b = flat[i], flat[i + t], adj[i], adj[i + t]
                    total += adj_b * a - adj_a * b
                    flat[i + t], flat[i] = cos * a + sin * b, cos * b - sin * a
                    adj[i + t], adj[i] = cos * adj_a + sin * adj_b, cos * adj_b - sin * adj_a
            inner += small + small
        outer += large + large
    return total


@inlined
def _columns(source, first, n_columns, target):
    """Copy columns to the beginning of the rows of `target`."""
    for row in range(len(target)):
        for j in range(n_columns):
            target[row, j] = source[row, first + j]


@inlined
def _columns_back(source, n_columns, target, first):
    for row in range(len(source)):
        for j in range(n_columns):
            target[row, first + j] = source[row, j]


@compiled
def _forward(start, cos_uploads, sin_uploads, cos, sin, program, states):
    """Fill the last states (E, 2**n_qubits, batch).

    Args:
        start: the first states, (E or 1, 2**n_qubits, batch); (0, ...) for |0...0>, where an upload comes first.
        cos_uploads, sin_uploads: the cosines and sines of half the uploads' angles, (n_qubits, batch).
        cos, sin: the cosines and sines of half the blocks' angles, (E, blocks).
        program: the control and target of each step's block, or UPLOAD twice, (steps, 2).
    """
    # In the last turn the columns beyond the batch hold what was there before. They are computed with the others,
    # which costs nothing in vectorized loops, and are never copied back.
    n_circuits, size, batch = states.shape
    state = np.empty((size, WIDTH), states.dtype)
    flat = state.reshape(-1)
    cos_here = np.ones((len(cos_uploads), WIDTH), states.dtype)
    sin_here = np.zeros((len(cos_uploads), WIDTH), states.dtype)
    for first in range(0, batch, WIDTH):
        n_columns = min(WIDTH, batch - first)
        _columns(cos_uploads, first, n_columns, cos_here)
        _columns(sin_uploads, first, n_columns, sin_here)
        for e in range(n_circuits):
            state[:] = 0
            if len(start):
                _columns(start[e % len(start)], first, n_columns, state)
            block = 0
            for step in range(len(program)):
                control, target = program[step]
                if control != UPLOAD:
                    _block(
                        flat, (size >> 1 + control) * WIDTH, (size >> 1 + target) * WIDTH, cos[e, block], sin[e, block]
                    )
                    block += 1
                elif step == 0:
                    _product(state, cos_here, sin_here)
                else:
                    _upload(state, cos_here, sin_here)
            _columns_back(state, n_columns, states[e], first)


@compiled
def _backward(states, grad, cos_uploads, sin_uploads, cos, sin, program, grads, grad_uploads):
    """Add to the gradients of the angles, (E, blocks), and of the uploads, (n_qubits, batch).

    `grad`, half that of the last states, becomes half that of the first.
    """
    n_circuits, size, batch = states.shape
    state, adjoint = np.zeros((size, WIDTH), states.dtype), np.zeros((size, WIDTH), states.dtype)
    flat, adj = state.reshape(-1), adjoint.reshape(-1)
    cos_here = np.ones((len(cos_uploads), WIDTH), states.dtype)
    sin_here = np.zeros((len(cos_uploads), WIDTH), states.dtype)
    of_uploads = np.zeros((len(cos_uploads), WIDTH), states.dtype)
    for first in range(0, batch, WIDTH):
        n_columns = min(WIDTH, batch - first)
        _columns(cos_uploads, first, n_columns, cos_here)
        _columns(sin_uploads, first, n_columns, sin_here)
        of_uploads[:] = 0
        for e in range(n_circuits):
            # Zeros beyond the batch, so that these columns add nothing to the gradients.
            state[:] = 0
            adjoint[:] = 0
            _columns(states[e], first, n_columns, state)
            _columns(grad[e], first, n_columns, adjoint)
            block = cos.shape[1]
            for step in range(len(program) - 1, -1, -1):
                control, target = program[step]
                if control != UPLOAD:
                    block -= 1
                    grads[e, block] += _undo_block(
                        flat,
                        adj,
                        (size >> 1 + control) * WIDTH,
                        (size >> 1 + target) * WIDTH,
                        cos[e, block],
                        sin[e, block],
                    )
                else:
                    _undo_upload(state, adjoint, cos_here, sin_here, of_uploads)
            _columns_back(adjoint, n_columns, grad[e], first)
        _columns_back(of_uploads, n_columns, grad_uploads, first)


class _Simulated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, start: Tensor, uploads: Tensor, angles: Tensor, observables: Tensor, program: np.ndarray
    ) -> Tensor:
        shape = len(angles), observables.shape[1], uploads.shape[1]
        kept = Scratch(shape, uploads)
        room = Scratch(shape, uploads)
        turns = [turn.contiguous() for x in (uploads / 2, angles / 2) for turn in (x.cos(), x.sin())]
        _forward(start.detach().contiguous().numpy(), *(turn.numpy() for turn in turns), program, kept.tensor.numpy())
        ctx.save_for_backward(observables, *turns)
        ctx.kept = kept
        ctx.program = program
        ctx.n_starts = len(start)
        return observables @ torch.square(kept.tensor, out=room.tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        observables, *turns = ctx.saved_tensors
        states = ctx.kept.tensor
        room = Scratch(states.shape, states)
        # The expectation is a sum of squares, each with an eigenvalue: half its gradient is the state times these.
        of_states = torch.matmul(observables.t(), grad, out=room.tensor).mul_(states)
        of_uploads, of_angles = torch.zeros_like(turns[0]), torch.zeros_like(turns[2])
        arrays = [t.numpy() for t in (states, of_states, *turns)]
        _backward(*arrays, ctx.program, of_angles.numpy(), of_uploads.numpy())
        of_start = None
        if ctx.needs_input_grad[0]:
            of_start = 2 * (of_states.sum(0, keepdim=True) if ctx.n_starts == 1 else of_states)
        return of_start, of_uploads, of_angles, None, None


@lru_cache(maxsize=64)
def _program(layers: tuple[tuple[tuple[int, int], ...] | None, ...]) -> np.ndarray:
    steps = [[(UPLOAD, UPLOAD)] if layer is None else layer for layer in layers]
    return np.array([step for layer in steps for step in layer], dtype=np.int64).reshape(-1, 2)


def simulate(
    start: Tensor | None,
    uploads: Tensor,
    angles: Tensor,
    layers: tuple[tuple[tuple[int, int], ...] | None, ...],
    observables: Tensor,
) -> Tensor:
    """Return expectations of diagonal observables after a circuit, once differentiable.

    Args:
        start: the states before it, shape (n_circuits or 1, 2**n_qubits, batch); None for |0...0>, where the first
            layer is an upload.
        uploads: the angles of the uploads in radians, shape (n_qubits, batch); (0, batch) without uploads.
        angles: the angles of the blocks in radians, shape (n_circuits, blocks of all layers).
        layers: the layers in time order, each the blocks' controls and targets, or None for an upload.
        observables: the eigenvalues of the observables, shape (n_observables, 2**n_qubits).

    Returns:
        The expectations, shape (n_circuits, n_observables, batch).
    """
    if start is None:
        start = uploads.new_empty(0, observables.shape[1], uploads.shape[1])
    return _Simulated.apply(start, uploads, angles, observables, _program(layers))
