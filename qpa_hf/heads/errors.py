"""Errors of a noisy device, drawn as Pauli operators and carried through the circuit to its end.

A Pauli operator passes CNOT as another one, and R_Y by turning its angle's sign, or not at all. So a course of errors
is the same circuit with some signs turned and some measured bits flipped: states stay real, and nothing but angles
changes. All errors are depolarising, with the average infidelities of a snapshot's qubits; the calibrated errors count
the relaxation during a gate, waiting qubits are left out. The ring has pairs that no device couples: each CNOT errs as
the mean of the snapshot's couplings.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qpa_hf.accelerators import sent
from qpa_hf.heads.blocks import Block
from qpa_hf.measurement.noise.channels import depolarizing_strength, readout_matrix
from qpa_hf.measurement.noise.snapshot import Snapshot

ROOTS = 2  # square roots of X that a device makes of one R_Y


def _error_probability(error: float, n_qubits: int) -> float:
    """Return how probable a Pauli error is, given a gate's average infidelity."""
    perfect = [torch.eye(4, dtype=torch.float64)] * n_qubits
    return depolarizing_strength(error, perfect) * (1 - 4.0**-n_qubits)


class PauliErrors:
    """Draws errors for many states at once and keeps where they have gone.

    Args:
        snapshot: the calibration of the device; circuit qubit q errs as the snapshot's line has it.
        n_qubits: the number of qubits of the circuit.
        n_columns: the number of states.
        rng: the random generator, on the CPU.
    """

    def __init__(self, snapshot: Snapshot, n_qubits: int, n_columns: int, rng: torch.Generator) -> None:
        self.rng = rng
        self.n_columns = n_columns
        # A Pauli operator on a qubit is two bits, whether it has an X and whether it has a Z; Y has both. Signs and
        # phases of the whole operator are left out, because no measurement shows them.
        self.x = torch.zeros(n_qubits, n_columns, dtype=torch.bool)
        self.z = torch.zeros(n_qubits, n_columns, dtype=torch.bool)
        self._turn = [_error_probability(q.sx_error, 1) for q in snapshot.line_qubits(n_qubits)]
        couplings = snapshot.line_couplings(n_qubits)
        self._pair = _error_probability(sum(c.cz_error for c in couplings) / max(1, len(couplings)), 2)

    def rotation(self, qubit: int) -> Tensor:
        """Pass R_Y on a qubit, draw its errors, and return the sign of its angle, (n_columns,) of -1 and +1."""
        # X and Z turn R_Y(a) into R_Y(-a) when they pass it, and Y, which has the same axis, leaves it alone.
        sign = 1 - 2 * (self.x[qubit] ^ self.z[qubit]).to(torch.int8)
        for _ in range(ROOTS):
            self._draw(self._turn[qubit], [qubit])
        return sign

    def cnot(self, control: int, target: int) -> None:
        """Pass CNOT and draw its errors."""
        # An X on the control becomes one on both qubits, and so does a Z on the target.
        self.x[target] ^= self.x[control]
        self.z[control] ^= self.z[target]
        self._draw(self._pair, [control, target])

    def _draw(self, probability: float, qubits: list[int]) -> None:
        """Let each Pauli string but the identity happen equally often."""
        # One number decides whether there is an error and which one. Two bits of the string belong to each qubit.
        drawn = torch.rand(self.n_columns, generator=self.rng, dtype=torch.float64)
        strings = 4 ** len(qubits) - 1
        index = torch.zeros(self.n_columns, dtype=torch.long)
        if probability > 0:
            string = 1 + (drawn / probability * strings).long().clamp(max=strings - 1)
            index = torch.where(drawn < probability, string, 0)
        for place, qubit in enumerate(qubits):
            self.x[qubit] ^= (index >> (2 * place) & 1).bool()
            self.z[qubit] ^= (index >> (2 * place + 1) & 1).bool()

    def layer(self, blocks: tuple[Block, ...]) -> Tensor:
        """Pass a layer of blocks; return the signs of its angles, (blocks, n_columns)."""
        signs = []
        for control, target in blocks:
            if control != target:
                self.cnot(control, target)
            signs.append(self.rotation(target))
        return torch.stack(signs)

    def upload(self) -> Tensor:
        """Pass R_Y on all qubits; return the signs of its angles, (n_qubits, n_columns)."""
        return torch.stack([self.rotation(qubit) for qubit in range(len(self.x))])

    def flip(self, p: Tensor) -> Tensor:
        """Flip measured bits.

        Args:
            p: the probabilities of the first qubits' states, (2**n_measured, n_columns).
        """
        # Only an X at the end of the circuit changes what is read: Z does nothing to a measured bit.
        n_measured = len(p).bit_length() - 1
        mask = torch.zeros(self.n_columns, dtype=torch.long)
        for bits in self.x[:n_measured]:
            mask = 2 * mask + bits.long()
        states = torch.arange(len(p))[:, None] ^ mask
        return p.gather(0, sent(states, p))


def confuse(p: Tensor, snapshot: Snapshot, n_qubits: int) -> Tensor:
    """Return the probabilities of what is read, given those of what is there.

    Args:
        p: the probabilities of the first qubits' states, (2**n_measured, batch).
        snapshot: the calibration of the device.
        n_qubits: the number of qubits of the circuit.
    """
    n_measured = len(p).bit_length() - 1
    for index, qubit in enumerate(snapshot.line_qubits(n_qubits)[:n_measured]):
        confusion = sent(readout_matrix(qubit.false_one, qubit.false_zero), p, p.dtype)
        p = torch.einsum("ij,ajb->aib", confusion, p.view(2**index, 2, -1)).reshape(p.shape)
    return p
