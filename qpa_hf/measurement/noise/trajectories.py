"""Noisy probabilities by Monte Carlo: pure states that suffer randomly drawn errors, averaged.

2**n numbers a trajectory instead of 4**n. Paulis are drawn with fixed probabilities, decays with those that the state
gives. The drawn probabilities are constants to the gradient, while the operators are not, so that the average of the
trajectories' gradients is the gradient of the average: unbiased, as the values are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qpa_hf.circuit.ansatz import find_ansatz
from qpa_hf.measurement.noise.channels import (
    CHANNELS,
    PAULIS,
    Draws,
    depolarizing_strength,
    passing_matrix,
    readout_matrix,
)
from qpa_hf.measurement.noise.native import HADAMARD, NativeCircuit, Run, native_circuit
from qpa_hf.measurement.noise.snapshot import Coupling, Qubit, Snapshot

if TYPE_CHECKING:
    from jaxtyping import Float


def draws_per_qubit() -> int:
    """Return how many random numbers a slot has for a qubit, a few more than it takes.

    Its run has two sqrt(X) at the most, its Hadamard one, and each takes a Pauli and one turn of the channels; its CZ
    takes a Pauli and a turn for either qubit: 4 numbers, and 5 turns.
    """
    return 10 + 5 * sum(channel.n_draws for channel in CHANNELS.values())


class Operator:
    """What happens to one qubit of every trajectory until it is applied to the states: a 2 x 2 matrix each.

    Args:
        rho: the reduced density matrix of the qubit, (B, 2, 2), without a gradient: decays are drawn with its
            probabilities.
    """

    def __init__(self, rho: Tensor) -> None:
        self.rho = rho
        self.matrix = torch.eye(2, dtype=rho.dtype, device=rho.device).expand_as(rho)

    def apply(self, matrix: Tensor) -> None:
        """Let a matrix (B or 1, 2, 2) act."""
        # The matrix carries the gradient; the density matrix only decides what is drawn next, and carries none.
        self.matrix = matrix @ self.matrix
        fixed = matrix.detach()
        self.rho = fixed @ self.rho @ fixed.mH

    def pauli(self, index: Tensor) -> None:
        """Let one of I, X, Y, Z act, by index (B,)."""
        self.apply(PAULIS.to(self.rho)[index])

    def wait(self, time: float, qubit: Qubit, draws: Draws) -> None:
        """Draw what happens to the qubit in `time` seconds."""
        for channel in CHANNELS.values():
            self.apply(channel.drawn(self.rho, time, qubit, draws))


def _draw_pauli(strength: float, n_qubits: int, draws: Draws) -> Tensor:
    """Return the index of the Pauli string that a depolarising channel applies, (B,); 0 is the identity."""
    # The same number decides whether there is an error and, within that part of the line, which one of the equally
    # likely strings it is. Of full depolarisation, a share of 4**-n is the identity.
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
    strength = depolarizing_strength(qubit.sx_error, [passing_matrix(qubit.sx_duration, qubit)])
    root = ((PAULIS[:1] - 1j * PAULIS[1:2]) / math.sqrt(2)).to(operator.rho)
    operator.apply(_turn(run[0], angles))
    for turn in run[1:]:
        operator.apply(root)
        operator.pauli(_draw_pauli(strength, 1, draws))
        operator.wait(qubit.sx_duration, qubit, draws)
        operator.apply(_turn(turn, angles))


class _Pending(NamedTuple):
    """A CZ's errors on one of its qubits: they wait for the qubit's next run, which is applied with them."""

    paulis: Tensor  # (B,)
    time: float


def _cz_errors(
    coupling: Coupling, qubits: tuple[Qubit, ...], idle: tuple[float, float], draws: Draws
) -> list[_Pending]:
    during = [passing_matrix(coupling.cz_duration, qubit) for qubit in qubits]
    string = _draw_pauli(depolarizing_strength(coupling.cz_error, during), 2, draws)
    drawn = (string // 4, string % 4)
    return [_Pending(paulis, coupling.cz_duration + wait) for paulis, wait in zip(drawn, idle, strict=True)]


class Trajectories:
    """The trajectories of circuits on a device.

    Args:
        circuit: the gates of the circuit on the device.
        snapshot: the calibration of the device.
    """

    def __init__(self, circuit: NativeCircuit, snapshot: Snapshot) -> None:
        self.circuit = circuit
        self.n_qubits = circuit.n_qubits
        self.qubits = snapshot.line_qubits(self.n_qubits)
        self.couplings = snapshot.line_couplings(self.n_qubits)

    def _act(
        self, state: Tensor, index: int, pending: _Pending | None, run: Run | None, angles: Tensor, draws: Draws
    ) -> Tensor:
        """Return the states (B, 2**N) after a qubit's pending errors and its run."""
        # All that happens to the qubit is gathered in one matrix of 2 x 2, so the states are read and written once.
        # Its reduced density matrix is enough to draw errors with the right probabilities.
        block = state.view(len(state), 2**index, 2, -1)
        fixed = block.detach()
        operator = Operator(torch.einsum("bpir,bpjr->bij", fixed, fixed.conj()))
        if pending is not None:
            operator.pauli(pending.paulis)
            operator.wait(pending.time, self.qubits[index], draws)
        if run is not None:
            _run(operator, run, angles, self.qubits[index], draws)
        return torch.einsum("bij,bpjr->bpir", operator.matrix, block).reshape(state.shape)

    def slot(self, state: Tensor, angles: Tensor, drawn: Tensor, slot: int) -> Tensor:
        """Return the states after a slot: runs, CZs and Hadamards with their errors.

        Args:
            state: the states of all trajectories, (B, 2**N).
            angles: the rotation angles of the slot in radians, (B, N).
            drawn: uniform random numbers, (`draws_per_qubit()` * N, B).
            slot: the number of the slot.
        """
        draws = iter(drawn)
        last = self.n_qubits - 1
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
    angles: Float[Tensor, "n_circuits n_slots n_qubits"],
    ansatz: str,
    snapshot: Snapshot,
    n_trajectories: int,
    seed: int,
) -> Float[Tensor, "n_circuits n_states"]:
    """Return an unbiased estimate of the probabilities of what a noisy device reads.

    Args:
        angles: the rotation angles in radians, float32 or float64, shape (C, S, N), S rotation layers.
        ansatz: the gate pattern, a key of `ANSATZE`.
        snapshot: the calibration of the device.
        n_trajectories: the number of trajectories of each circuit; the error falls with its square root.
        seed: the seed of the random draws.

    Returns:
        The probabilities, shape (C, 2**N), each row summing to 1; differentiable, with an unbiased gradient.
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
        shape = (draws_per_qubit() * n_qubits, len(many))
        return torch.rand(shape, generator=rng, dtype=angles.dtype, device=angles.device)

    for slot in range(n_slots):
        # Computed a second time in the backward pass: the states of all gates would fill the memory.
        state = checkpoint(trajectories.slot, state, many[:, slot], draw(), slot, use_reentrant=False)
    state = trajectories.finish(state, many[:, -1], draw())
    p = torch.view_as_real(state).square().sum(-1)
    p = p.view(n_circuits, n_trajectories, -1).mean(1)
    # Readout acts on probabilities, so it is computed and not drawn: that adds no variance.
    for index, qubit in enumerate(trajectories.qubits):
        p = readout_matrix(qubit.false_one, qubit.false_zero).to(p) @ p.view(n_circuits, 2**index, 2, -1)
    return p.reshape(n_circuits, -1)
