"""Noisy probabilities by Monte Carlo: pure states that suffer randomly drawn errors, averaged.

2**n numbers a trajectory instead of 4**n. Paulis are drawn with fixed probabilities, decays with those that the state
gives. The drawn probabilities are constants to the gradient, while the operators are not, so that the average of the
trajectories' gradients is the gradient of the average: unbiased, as the values are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qpa_hf.circuit.ansatz import find_ansatz
from qpa_hf.circuit.noise.channels import (
    PAULIS,
    damping_and_flip,
    depolarizing_strength,
    readout_matrix,
    relaxation_matrix,
)
from qpa_hf.circuit.noise.native import HADAMARD, NativeCircuit, Run, native_circuit
from qpa_hf.circuit.noise.snapshot import Coupling, Qubit, Snapshot

DRAWS_PER_QUBIT = 20  # random numbers that a slot may take: its run, CZ and Hadamard take 15 at the most
Draws = Iterator[Tensor]  # uniform on [0, 1), each (B,): one number for each trajectory


class Operator:
    """What happens to one qubit of every trajectory until it is applied to the states: a 2 x 2 matrix each.

    Args:
        rho: reduced density matrix of the qubit, (B, 2, 2), no gradient: decays are drawn with its probabilities.
    """

    def __init__(self, rho: Tensor) -> None:
        self.rho = rho
        self.matrix = torch.eye(2, dtype=rho.dtype, device=rho.device).expand_as(rho)

    def apply(self, matrix: Tensor) -> None:
        """Let a matrix (B or 1, 2, 2) act."""
        self.matrix = matrix @ self.matrix
        fixed = matrix.detach()
        self.rho = fixed @ self.rho @ fixed.mH

    def pauli(self, index: Tensor) -> None:
        """Let one of I, X, Y, Z act, by index (B,)."""
        self.apply(PAULIS.to(self.rho)[index])

    def relax(self, time: float, qubit: Qubit, draws: Draws) -> None:
        """Draw what thermal relaxation does in `time` seconds."""
        decay, flip = damping_and_flip(time, qubit.t1, qubit.t2)
        p_decay = (decay * self.rho[:, 1, 1].real / self.rho.diagonal(dim1=1, dim2=2).real.sum(-1)).clamp(0, 1)
        has_decayed = next(draws) < p_decay
        sign = 1 - 2 * (next(draws) < flip).to(p_decay.dtype)
        scale = torch.where(has_decayed, p_decay, 1 - p_decay).rsqrt()
        stays = (~has_decayed).to(p_decay.dtype) * scale
        kraus = torch.zeros_like(self.rho)
        kraus[:, 0, 0] = stays
        kraus[:, 1, 1] = stays * math.sqrt(1 - decay) * sign
        kraus[:, 0, 1] = torch.where(has_decayed, math.sqrt(decay) * scale, 0)
        self.apply(kraus)


def _draw_pauli(strength: float, n_qubits: int, draws: Draws) -> Tensor:
    """Return the index of the Pauli string that a depolarising channel applies, (B,); 0 is the identity."""
    drawn = next(draws)
    p_error = strength * (1 - 4.0**-n_qubits)
    if p_error == 0:
        return torch.zeros_like(drawn, dtype=torch.long)
    return torch.where(drawn < p_error, 1 + (drawn / p_error * (4**n_qubits - 1)).long(), 0).clamp(max=4**n_qubits - 1)


def _turn(turn: tuple[int, float], angles: Tensor) -> Tensor:
    """Return R_Z(k * angle + c), (B, 2, 2), for angles (B,)."""
    half = (turn[0] * angles + turn[1]) / 2
    return torch.diag_embed(torch.stack((torch.polar(torch.ones_like(half), -half), torch.exp(1j * half)), -1))


def _run(operator: Operator, run: Run, angles: Tensor, qubit: Qubit, draws: Draws) -> None:
    """Let a run's gates act, and the errors of each sqrt(X)."""
    relaxation = relaxation_matrix(qubit.sx_duration, qubit.t1, qubit.t2)
    strength = depolarizing_strength(qubit.sx_error, [relaxation])
    root = ((PAULIS[:1] - 1j * PAULIS[1:2]) / math.sqrt(2)).to(operator.rho)
    operator.apply(_turn(run[0], angles))
    for turn in run[1:]:
        operator.apply(root)
        operator.pauli(_draw_pauli(strength, 1, draws))
        operator.relax(qubit.sx_duration, qubit, draws)
        operator.apply(_turn(turn, angles))


class _Pending(NamedTuple):
    """A CZ's errors on one of its qubits: they wait for the qubit's next run, which is applied with them."""

    paulis: Tensor  # (B,)
    time: float


def _cz_errors(
    coupling: Coupling, qubits: tuple[Qubit, ...], idle: tuple[float, float], draws: Draws
) -> list[_Pending]:
    during = [relaxation_matrix(coupling.cz_duration, qubit.t1, qubit.t2) for qubit in qubits]
    string = _draw_pauli(depolarizing_strength(coupling.cz_error, during), 2, draws)
    drawn = (string // 4, string % 4)
    return [_Pending(paulis, coupling.cz_duration + wait) for paulis, wait in zip(drawn, idle, strict=True)]


class Trajectories:
    """The trajectories of circuits on a device.

    Args:
        circuit: its gates.
        snapshot: the device.
    """

    def __init__(self, circuit: NativeCircuit, snapshot: Snapshot) -> None:
        self.circuit, self.n_qubits = circuit, circuit.n_qubits
        self.qubits = snapshot.line_qubits(self.n_qubits)
        self.couplings = snapshot.line_couplings(self.n_qubits)

    def _act(
        self, state: Tensor, index: int, pending: _Pending | None, run: Run | None, angles: Tensor, draws: Draws
    ) -> Tensor:
        """Return the states (B, 2**N) after a qubit's pending errors and its run."""
        block = state.view(len(state), 2**index, 2, -1)
        fixed = block.detach()
        operator = Operator(torch.einsum("bpir,bpjr->bij", fixed, fixed.conj()))
        if pending is not None:
            operator.pauli(pending.paulis)
            operator.relax(pending.time, self.qubits[index], draws)
        if run is not None:
            _run(operator, run, angles, self.qubits[index], draws)
        return torch.einsum("bij,bpjr->bpir", operator.matrix, block).reshape(state.shape)

    def slot(self, state: Tensor, angles: Tensor, drawn: Tensor, slot: int) -> Tensor:
        """Return the states after a slot: runs, CZs and Hadamards with their errors.

        Args:
            state: (B, 2**N).
            angles: (B, N).
            drawn: uniform random numbers, (`DRAWS_PER_QUBIT` * N, B).
            slot: which one.
        """
        draws, last = iter(drawn), self.n_qubits - 1
        for index, run in enumerate(self.circuit.runs[slot]):
            state = self._act(state, index, None, run, angles[:, index], draws)
        for left in range(last):
            signs = torch.tensor([1, 1, 1, -1], dtype=angles.dtype, device=angles.device)
            state = (state.view(len(state), 2**left, 4, -1) * signs[:, None]).view(state.shape)
            idle = self.circuit.idle[slot][left]
            errors = _cz_errors(self.couplings[left], self.qubits[left : left + 2], idle, draws)
            # Nothing else happens to the left qubit in this slot, nor to the last one.
            state = self._act(state, left, errors[0], None, angles[:, left], draws)
            hadamard = HADAMARD if left + 1 < last else None
            state = self._act(state, left + 1, errors[1], hadamard, angles[:, left], draws)
        return state

    def finish(self, state: Tensor, angles: Tensor, drawn: Tensor) -> Tensor:
        """Return the states after the last qubit's Hadamard, which closes its last CNOT."""
        if self.n_qubits == 1:
            return state
        return self._act(state, self.n_qubits - 1, None, HADAMARD, angles[:, -1], iter(drawn))


def trajectory_probabilities(
    angles: Tensor, ansatz: str, snapshot: Snapshot, n_trajectories: int, seed: int
) -> Tensor:
    """Return an unbiased estimate of the probabilities of what a noisy device reads.

    Args:
        angles: float32 or float64, radians, shape (C, S, N), S rotation layers.
        ansatz: a key of `ANSATZE`.
        snapshot: the device.
        n_trajectories: of each circuit; the error falls as one over the root of it.
        seed: of the random draws.

    Returns:
        Shape (C, 2**N), each row summing to 1; differentiable, with an unbiased gradient.
    """
    n_circuits, n_slots, n_qubits = angles.shape
    trajectories = Trajectories(
        native_circuit(ansatz, n_slots // len(find_ansatz(ansatz).rotations), n_qubits, snapshot), snapshot
    )
    rng = torch.Generator(angles.device).manual_seed(seed)
    many = angles.repeat_interleave(n_trajectories, 0)  # (B, S, N)
    dtype = torch.complex128 if angles.dtype == torch.float64 else torch.complex64
    state = torch.zeros(len(many), 2**n_qubits, dtype=dtype, device=angles.device)
    state[:, 0] = 1

    def draw() -> Tensor:
        shape = (DRAWS_PER_QUBIT * n_qubits, len(many))
        return torch.rand(shape, generator=rng, dtype=angles.dtype, device=angles.device)

    for slot in range(n_slots):
        # Computed a second time in the backward pass: the states of all gates would fill the memory.
        state = checkpoint(trajectories.slot, state, many[:, slot], draw(), slot, use_reentrant=False)
    state = trajectories.finish(state, many[:, -1], draw())
    p = torch.view_as_real(state).square().sum(-1)
    p = p.view(n_circuits, n_trajectories, -1).mean(1)
    for index, qubit in enumerate(trajectories.qubits):
        p = readout_matrix(qubit.false_one, qubit.false_zero).to(p) @ p.view(n_circuits, 2**index, 2, -1)
    return p.reshape(n_circuits, -1)
