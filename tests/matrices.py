"""Circuits as products of full matrices, gate by gate: slow, and sharing nothing with the package's simulations."""

import math

import torch

PROJECTORS = torch.tensor([[[1, 0], [0, 0]], [[0, 0], [0, 1]]], dtype=torch.complex128)
TARGETS = {"cnot": [[0, 1], [1, 0]], "cz": [[1, 0], [0, -1]]}  # what a gate does to its target where the control is 1


def rotation(axis, angle):
    c, s = math.cos(angle / 2), math.sin(angle / 2)
    entries = {"x": [[c, -1j * s], [-1j * s, c]], "y": [[c, -s], [s, c]], "z": [[c - 1j * s, 0], [0, c + 1j * s]]}
    return torch.tensor(entries[axis], dtype=torch.complex128)


def on(qubits, n_qubits):
    """Return the full matrix of one-qubit matrices, given as {qubit: matrix}, and of the identity elsewhere."""
    full = torch.eye(1, dtype=torch.complex128)
    for qubit in range(n_qubits):
        full = torch.kron(full, qubits.get(qubit, torch.eye(2, dtype=torch.complex128)))
    return full


def controlled(gate, control, target, n_qubits):
    acting = torch.tensor(TARGETS[gate], dtype=torch.complex128)
    return on({control: PROJECTORS[0]}, n_qubits) + on({control: PROJECTORS[1], target: acting}, n_qubits)


def dense(angles, ansatz):
    """Return one circuit's probabilities, (2**N,) float64, given its angles (L, N) or (L, R, N)."""
    n_qubits = angles.shape[-1]
    entangler = torch.eye(2**n_qubits, dtype=torch.complex128)
    for gate in ansatz.entangling_gates(n_qubits):
        entangler = controlled(*gate, n_qubits) @ entangler
    state = torch.zeros(2**n_qubits, dtype=torch.complex128)
    state[0] = 1
    for layer in angles.double().reshape(len(angles), len(ansatz.rotations), n_qubits):
        for axis, row in zip(ansatz.rotations, layer, strict=True):
            turns = on({qubit: rotation(axis, angle) for qubit, angle in enumerate(row.tolist())}, n_qubits)
            state = entangler @ (turns @ state)
    return state.abs() ** 2
