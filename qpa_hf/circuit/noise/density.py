"""Exact noisy probabilities: the density matrix as expectations of Pauli strings, moved by transfer matrices.

A density matrix of n qubits is 4**n real expectations. A slot of the circuit is a sequence of maps on three
neighbouring qubits each, overlapping by one: their runs, then the CZs between them with all noise that follows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qpa_hf.circuit.ansatz import find_ansatz
from qpa_hf.circuit.noise.channels import (
    PAULIS,
    depolarizing_strength,
    readout_matrix,
    relaxation_matrix,
    transfer_matrix,
)
from qpa_hf.circuit.noise.native import HADAMARD, Run, native_circuit
from qpa_hf.circuit.noise.snapshot import Qubit, Snapshot

GROUP_SIZE = 3  # qubits; matrices of 64 x 64: measured faster than of 16 x 16 and of 256 x 256
KEPT_BYTES = 2**28  # of states that a backward pass may keep; beyond, each slot is computed twice


class Tables(NamedTuple):
    """All that does not depend on angles, for one circuit shape on one device.

    Args:
        runs: (S, N, 3, 16) transfer matrices of the runs, as coefficients of 1, cos and sin of the angle.
        groups: first and last qubit of each group.
        chains: for each group, (S, D, D) the CZs of its qubits with their noise and Hadamards; D = 4**size.
        readout: (N, 2, 4) expectations of each qubit to the probabilities of what is read.
    """

    runs: Tensor
    groups: list[tuple[int, int]]
    chains: list[Tensor]
    readout: Tensor


def _sx_matrix(qubit: Qubit) -> Tensor:
    """Return the transfer matrix of a noisy sqrt(X), (4, 4)."""
    root = (PAULIS[0] - 1j * PAULIS[1]) / math.sqrt(2)
    relaxation = relaxation_matrix(qubit.sx_duration, qubit.t1, qubit.t2)
    shrunk = torch.full((4,), 1 - depolarizing_strength(qubit.sx_error, [relaxation]), dtype=torch.float64)
    shrunk[0] = 1
    return relaxation @ (shrunk[:, None] * transfer_matrix(root[None]))


def _turn_terms(turn: tuple[int, float]) -> Tensor:
    """Return R_Z(k * angle + c) as coefficients of 1, cos(angle) and sin(angle), (3, 4, 4)."""
    k, c = turn
    terms = torch.zeros(3, 4, 4, dtype=torch.float64)
    terms[0, 0, 0] = terms[0, 3, 3] = 1
    fixed, moving = float(k == 0), float(k != 0)
    cos = torch.tensor([fixed * math.cos(c), moving * math.cos(c), -k * math.sin(c)], dtype=torch.float64)
    sin = torch.tensor([fixed * math.sin(c), moving * math.sin(c), k * math.cos(c)], dtype=torch.float64)
    terms[:, 1, 1] += cos
    terms[:, 2, 2] += cos
    terms[:, 2, 1] += sin
    terms[:, 1, 2] -= sin
    return terms


def run_terms(run: Run, qubit: Qubit) -> Tensor:
    """Return a noisy run's transfer matrix as coefficients of 1, cos(angle) and sin(angle), (3, 4, 4), float64."""
    root = _sx_matrix(qubit)
    terms = _turn_terms(run[0])
    for turn in run[1:]:
        later = _turn_terms(turn)
        # One of the two is constant: a run has one angle.
        terms = root @ terms
        terms = later[0] @ terms if turn[0] == 0 else later @ terms[0]
    return terms


def _cz_matrix(left: Qubit, right: Qubit, error: float, duration: float, idle: tuple[float, float]) -> Tensor:
    """Return the transfer matrix of a noisy CZ and the waiting after it, (16, 16)."""
    strings = torch.stack([torch.kron(a, b) for a in PAULIS for b in PAULIS])
    gate = torch.diag(torch.tensor([1, 1, 1, -1], dtype=torch.complex128))
    ideal = torch.einsum("iab,jba->ij", strings, gate @ strings @ gate).real / 4
    during = [relaxation_matrix(duration, qubit.t1, qubit.t2) for qubit in (left, right)]
    shrunk = torch.full((16,), 1 - depolarizing_strength(error, during), dtype=torch.float64)
    shrunk[0] = 1
    after = [relaxation_matrix(duration + wait, q.t1, q.t2) for q, wait in zip((left, right), idle, strict=True)]
    return torch.kron(after[0], after[1]) @ (shrunk[:, None] * ideal)


def _groups(n_qubits: int) -> list[tuple[int, int]]:
    if n_qubits == 1:
        return [(0, 0)]
    step = GROUP_SIZE - 1
    return [(first, min(first + step, n_qubits - 1)) for first in range(0, n_qubits - 1, step)]


def _chain(first: int, last: int, n_qubits: int, czs: list[Tensor], hadamards: list[Tensor]) -> Tensor:
    """Return the product of a group's CZs, (D, D); a Hadamard follows each CZ on its right qubit but the very last."""
    size = last - first + 1
    matrix = torch.eye(4**size, dtype=torch.float64)
    for left in range(first, last):
        cz = czs[left]
        if left + 1 < n_qubits - 1:
            cz = torch.kron(torch.eye(4, dtype=torch.float64), hadamards[left + 1]) @ cz
        before = torch.eye(4 ** (left - first), dtype=torch.float64)
        after = torch.eye(4 ** (last - left - 1), dtype=torch.float64)
        matrix = torch.kron(torch.kron(before, cz), after) @ matrix
    return matrix


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a table that was made in inference mode could not be trained with later
def make_tables(
    ansatz: str, depth: int, n_qubits: int, snapshot: Snapshot, dtype: torch.dtype, device: torch.device
) -> Tables:
    """Return the tables of a circuit shape on a device."""
    circuit = native_circuit(ansatz, depth, n_qubits, snapshot)
    qubits, couplings = snapshot.line_qubits(n_qubits), snapshot.line_couplings(n_qubits)
    hadamards = [run_terms(HADAMARD, qubit)[0] for qubit in qubits]
    runs = torch.stack([torch.stack([run_terms(*pair) for pair in zip(s, qubits, strict=True)]) for s in circuit.runs])
    groups = _groups(n_qubits)
    chains: list[list[Tensor]] = [[] for _ in groups]
    for idle in circuit.idle:
        czs = [
            _cz_matrix(qubits[q], qubits[q + 1], couplings[q].cz_error, couplings[q].cz_duration, idle[q])
            for q in range(n_qubits - 1)
        ]
        for chain, (first, last) in zip(chains, groups, strict=True):
            chain.append(_chain(first, last, n_qubits, czs, hadamards))
    expectation = torch.tensor([[0.5, 0, 0, 0.5], [0.5, 0, 0, -0.5]], dtype=torch.float64)
    readout = [readout_matrix(qubit.false_one, qubit.false_zero) @ expectation for qubit in qubits]
    if n_qubits > 1:
        readout[-1] = readout[-1] @ hadamards[-1]
    return Tables(
        runs.flatten(-2).to(device, dtype),
        groups,
        [torch.stack(chain).to(device, dtype) for chain in chains],
        torch.stack(readout).to(device, dtype),
    )


def _kronecker(matrices: Tensor) -> Tensor:
    """Return the Kronecker product over the last but two dimensions: (..., g, 4, 4) to (..., 4**g, 4**g)."""
    product, *others = matrices.unbind(-3)
    for matrix in others:
        product = (product[..., :, None, :, None] * matrix[..., None, :, None, :]).flatten(-4, -3).flatten(-2, -1)
    return product


def _slot_maps(angles: Tensor, tables: Tables) -> list[list[Tensor]]:
    """Return for each slot the groups' maps, (C, D, D) each, given angles (C, S, N)."""
    waves = torch.stack((torch.ones_like(angles), angles.cos(), angles.sin()), -1)  # (C, S, N, 3)
    runs = torch.einsum("csnk,snkm->csnm", waves, tables.runs).unflatten(-1, (4, 4))
    maps = []
    for (first, last), chain in zip(tables.groups, tables.chains, strict=True):
        own = runs[:, :, first : last + 1]
        if first > 0:  # the group before has applied the run of the qubit that they share
            identity = torch.eye(4, dtype=runs.dtype, device=runs.device).expand_as(own[:, :, :1])
            own = torch.cat((identity, own[:, :, 1:]), 2)
        maps.append((chain @ _kronecker(own)).unbind(1))
    return [list(slot) for slot in zip(*maps, strict=True)]


def _apply_slot(state: Tensor, groups: list[tuple[int, int]], *maps: Tensor) -> Tensor:
    """Apply the groups' maps in turn to the state (C, 4**N)."""
    n_circuits = len(state)
    for (first, _), matrix in zip(groups, maps, strict=True):
        block = state.view(n_circuits, 4**first, matrix.shape[-1], -1)
        if block.shape[-1] == 1:
            moved = torch.bmm(block.squeeze(-1), matrix.mT)
        else:
            moved = torch.einsum("cij,cpjr->cpir", matrix, block)
        state = moved.reshape(n_circuits, -1)
    return state


def density_probabilities(angles: Tensor, ansatz: str, snapshot: Snapshot) -> Tensor:
    """Return the probabilities of what a noisy device reads, exactly: no sampling.

    Args:
        angles: float32 or float64, radians, shape (C, S, N), S rotation layers.
        ansatz: a key of `ANSATZE`.
        snapshot: the device.

    Returns:
        Shape (C, 2**N), differentiable.
    """
    n_circuits, n_slots, n_qubits = angles.shape
    depth = n_slots // len(find_ansatz(ansatz).rotations)
    tables = make_tables(ansatz, depth, n_qubits, snapshot, angles.dtype, angles.device)
    zero = torch.tensor([1, 0, 0, 1], dtype=angles.dtype, device=angles.device)
    state = zero
    for _ in range(n_qubits - 1):
        state = torch.outer(state, zero).flatten()
    state = state.expand(n_circuits, -1).contiguous()
    kept_bytes = n_slots * len(tables.groups) * state.nbytes
    is_kept = kept_bytes <= KEPT_BYTES or not (torch.is_grad_enabled() and angles.requires_grad)
    for maps in _slot_maps(angles, tables):
        if is_kept:
            state = _apply_slot(state, tables.groups, *maps)
        else:
            state = checkpoint(_apply_slot, state, tables.groups, *maps, use_reentrant=False)
    for qubit in range(n_qubits):
        state = tables.readout[qubit] @ state.view(n_circuits, 2**qubit, 4, -1)  # the leading qubits are read
    return state.reshape(n_circuits, -1)
