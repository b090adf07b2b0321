"""Exact noisy probabilities: the density matrix as expectations of Pauli strings, moved by transfer matrices.

A density matrix of n qubits is 4**n real expectations. A slot of the circuit is a sequence of maps on three
neighbouring qubits each, overlapping by one: their runs, then the CZs between them with all noise that follows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qpa_hf.circuit.ansatz import find_ansatz
from qpa_hf.measurement.noise.channels import (
    PAULIS,
    depolarizing_strength,
    passing_matrix,
    readout_matrix,
    transfer_matrix,
)
from qpa_hf.measurement.noise.native import HADAMARD, Run, native_circuit
from qpa_hf.measurement.noise.snapshot import Qubit, Snapshot

if TYPE_CHECKING:
    from jaxtyping import Float

GROUP_SIZE = 3  # qubits; matrices of 64 x 64: measured faster than of 16 x 16 and of 256 x 256
KEPT_BYTES = 2**28  # of states that a backward pass may keep; beyond, each slot is computed twice


class Tables(NamedTuple):
    """All that does not depend on angles, for one circuit shape on one device.

    Args:
        runs: the transfer matrices of the runs, as coefficients of 1, cos and sin of the angle, (S, N, 3, 16).
        groups: the first and the last qubit of each group.
        chains: the CZs of each group's qubits with their noise and Hadamards, each (S, D, D), D = 4**size.
        readout: the maps from each qubit's expectations to the probabilities of what is read, (N, 2, 4).
    """

    runs: Float[Tensor, "n_slots n_qubits 3 16"]
    groups: list[tuple[int, int]]
    chains: list[Tensor]
    readout: Float[Tensor, "n_qubits 2 4"]


def _sx_matrix(qubit: Qubit) -> Tensor:
    """Return the transfer matrix of a noisy sqrt(X), (4, 4)."""
    # A depolarising channel shrinks X, Y and Z alike, and leaves I alone: the trace of a density matrix stays 1.
    root = (PAULIS[0] - 1j * PAULIS[1]) / math.sqrt(2)
    passing = passing_matrix(qubit.sx_duration, qubit)
    shrunk = torch.full((4,), 1 - depolarizing_strength(qubit.sx_error, [passing]), dtype=torch.float64)
    shrunk[0] = 1
    return passing @ (shrunk[:, None] * transfer_matrix(root[None]))


def _turn_terms(turn: tuple[int, float]) -> Tensor:
    """Return R_Z(k * angle + c) as coefficients of 1, cos(angle) and sin(angle), (3, 4, 4)."""
    # R_Z turns X into Y by k * angle + c, and leaves I and Z alone. With k of -1, 0 or 1, the addition theorems make
    # cos(k * angle + c) a sum over 1, cos(angle) and sin(angle), so that tables hold all but two waves of each angle.
    k, c = turn
    terms = torch.zeros(3, 4, 4, dtype=torch.float64)
    terms[0, 0, 0] = terms[0, 3, 3] = 1
    fixed = float(k == 0)
    moving = float(k != 0)
    cos = torch.tensor([fixed * math.cos(c), moving * math.cos(c), -k * math.sin(c)], dtype=torch.float64)
    sin = torch.tensor([fixed * math.sin(c), moving * math.sin(c), k * math.cos(c)], dtype=torch.float64)
    terms[:, 1, 1] += cos
    terms[:, 2, 2] += cos
    terms[:, 2, 1] += sin
    terms[:, 1, 2] -= sin
    return terms


def run_terms(run: Run, qubit: Qubit) -> Float[Tensor, "3 4 4"]:
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
    # The CZ exchanges strings (XI becomes XZ, XX becomes YY), so its transfer matrix is a signed permutation.
    strings = torch.stack([torch.kron(a, b) for a in PAULIS for b in PAULIS])
    gate = torch.diag(torch.tensor([1, 1, 1, -1], dtype=torch.complex128))
    ideal = torch.einsum("iab,jba->ij", strings, gate @ strings @ gate).real / 4
    during = [passing_matrix(duration, qubit) for qubit in (left, right)]
    shrunk = torch.full((16,), 1 - depolarizing_strength(error, during), dtype=torch.float64)
    shrunk[0] = 1
    after = [passing_matrix(duration + wait, qubit) for qubit, wait in zip((left, right), idle, strict=True)]
    return torch.kron(after[0], after[1]) @ (shrunk[:, None] * ideal)


def _groups(n_qubits: int) -> list[tuple[int, int]]:
    # Neighbouring groups share a qubit, since a CZ also joins the last qubit of one with the next: for N = 5, the
    # groups are 0 to 2 and 2 to 4.
    if n_qubits == 1:
        return [(0, 0)]
    step = GROUP_SIZE - 1
    return [(first, min(first + step, n_qubits - 1)) for first in range(0, n_qubits - 1, step)]


def _chain(first: int, last: int, n_qubits: int, czs: list[Tensor], hadamards: list[Tensor]) -> Tensor:
    """Return the product of a group's CZs, (D, D); a Hadamard follows each CZ on its right qubit but the very last."""
    # Each CZ is a matrix of 16 x 16 on two neighbours, padded with identities to the whole group. For a group of three
    # qubits that is CZ(0, 1) x I and then I x CZ(1, 2).
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
    qubits = snapshot.line_qubits(n_qubits)
    couplings = snapshot.line_couplings(n_qubits)
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
    # Only I and Z tell of a measured bit: P(0) = (1 + <Z>) / 2, and P(1) = (1 - <Z>) / 2.
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


def density_probabilities(
    angles: Float[Tensor, "n_circuits n_slots n_qubits"], ansatz: str, snapshot: Snapshot
) -> Float[Tensor, "n_circuits n_states"]:
    """Return the probabilities of what a noisy device reads, exactly: no sampling.

    Args:
        angles: the rotation angles in radians, float32 or float64, shape (C, S, N), S rotation layers.
        ansatz: the gate pattern, a key of `ANSATZE`.
        snapshot: the calibration of the device.

    Returns:
        The probabilities, shape (C, 2**N), differentiable.
    """
    n_circuits, n_slots, n_qubits = angles.shape
    depth = n_slots // len(find_ansatz(ansatz).rotations)
    tables = make_tables(ansatz, depth, n_qubits, snapshot, angles.dtype, angles.device)
    # |0> has the expectations <I> = <Z> = 1 and <X> = <Y> = 0; those of several qubits are products.
    zero = torch.eye(2, dtype=angles.dtype, device=angles.device).flatten()
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
