# mypy: disallow-untyped-defs=False
"""R_X + CNOT: all rotations commute, and their phases are a Walsh-Hadamard transform, too; see `torch_walsh`.

The phase of basis state s is the sum over all angles, with a sign for each: whether s and the angle's string of X have
an odd number of ones in common. These are the rows of the transform: it takes angles, placed at their strings, to the
phases, and the gradient of the phases back to that of the angles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.simulators import compilers
from qpa_hf.circuit.simulators.numba_jit import compiled, copied, inlined, knows
from qpa_hf.circuit.simulators.torch_walsh import strings

if TYPE_CHECKING:
    from qpa_hf.circuit.simulators.shapes import Angles, Probabilities


@inlined
def _transform(x):
    """Replace x by its Walsh-Hadamard transform."""
    # Butterflies: N rounds of a + b and a - b for pairs that differ in one bit. Unsigned, so that they are vectorized.
    step, size = np.uint64(1), np.uint64(len(x))
    while step < size:
        base = np.uint64(0)
        while base < size:
            for offset in range(step):
                i = base + np.uint64(offset)
                a, b = x[i], x[i + step]
                x[i] = a + b
                x[i + step] = a - b
            base += step + step
        step += step


@compiled
def _phases(angles, strings, phases):
    """Add to phases (C, 2**N), given angles (C, L * N)."""
    # Two angles may have the same string, so they are added up before the transform.
    half = angles.dtype.type(0.5)
    for c in range(len(angles)):
        for k in range(len(strings)):
            phases[c, strings[k]] -= angles[c, k] * half
        _transform(phases[c])


@compiled
def _interfere(waves, states, p):
    """Fill the last states, (C, 2, 2**N) as `waves`: real and imaginary part; add to p (C, 2**N)."""
    scale = 1 / waves.dtype.type(p.shape[1])
    for c in range(len(waves)):
        for part in range(2):
            state = states[c, part]
            for i in range(len(state)):
                state[i] = waves[c, part, i] * scale
            _transform(state)
            for i in range(len(state)):
                p[c, i] += state[i] * state[i]


@compiled
def _gradients(waves, states, grad, strings, grads):
    """Fill grads (C, L * N)."""
    scale = 1 / grad.dtype.type(grad.shape[1])
    # The transform is symmetric: the way back is the same transform, on gradients in place of values.
    of_wave = np.empty((2, grad.shape[1]), grad.dtype)
    for c in range(len(waves)):
        for part in range(2):
            row = of_wave[part]
            for i in range(len(row)):
                row[i] = states[c, part, i] * grad[c, i] * scale
            _transform(row)
        # The phases carry -1/2, the square 2.
        of_phase = of_wave[0]
        for i in range(len(of_phase)):
            of_phase[i] = of_phase[i] * waves[c, 1, i] - of_wave[1, i] * waves[c, 0, i]
        _transform(of_phase)
        for k in range(len(strings)):
            grads[c, k] = of_phase[strings[k]]


def can(ansatz: Ansatz, n_qubits: int, n_circuits: int) -> bool:
    """Return whether a layer is R_X and the chain of CNOTs."""
    return ansatz.rotations == ("x",) and knows(ansatz, n_qubits, n_circuits)


n_arrays = compilers.n_arrays


def forward(angles: Angles, ansatz: Ansatz) -> tuple[Probabilities, tuple[Tensor, Tensor]]:
    """Return the probabilities (C, 2**N), the phases' cosines and sines and the last states, both (C, 2, 2**N)."""
    angles = copied(angles)
    n_circuits, depth, _, n_qubits = angles.shape
    phases = angles.new_zeros(n_circuits, 2**n_qubits)
    _phases(angles.flatten(1).numpy(), strings(depth, n_qubits).numpy(), phases.numpy())
    waves = torch.stack((phases.cos(), phases.sin()), 1)
    states = torch.empty_like(waves)
    p = torch.zeros_like(phases)
    _interfere(waves.numpy(), states.numpy(), p.numpy())
    return p, (waves, states)


def backward(angles: Angles, kept: tuple[Tensor, Tensor], grad: Probabilities, ansatz: Ansatz) -> Angles:
    """Return the gradient of the angles (C, L, 1, N), given that of the probabilities (C, 2**N)."""
    angles = copied(angles)
    grads = torch.empty_like(angles)
    of_angles = strings(*angles.shape[1::2]).numpy()
    _gradients(*(t.numpy() for t in (*kept, grad)), of_angles, grads.flatten(1).numpy())
    return grads
