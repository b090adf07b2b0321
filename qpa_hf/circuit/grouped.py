"""Any ansatz, any number of qubits: rotation layers as matrices of a few qubits each, in turn.

The backward pass undoes the layers instead of storing the states, so memory does not grow with depth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.tables import GroupTables, chain_index, group_tables

GROUP_SIZE = 5  # matrices of 32 x 32 keep the matrix units busy and cost least per amplitude (measured)


def _groups(n_qubits: int) -> list[slice]:
    n_groups = -(-n_qubits // GROUP_SIZE)
    bounds = [round(i * n_qubits / n_groups) for i in range(n_groups + 1)]
    return [slice(low, high) for low, high in zip(bounds[:-1], bounds[1:], strict=True)]


class GroupedCircuit:
    """One batch of circuits, ready to be run forwards and backwards.

    Args:
        angles: (C, L, R, N) in radians, R rotations a layer.
        ansatz: the rotations' axes.
    """

    def __init__(self, angles: Tensor, ansatz: Ansatz) -> None:
        self.angles, self.axes = angles, ansatz.rotations
        self.n_circuits, self.depth, _, self.n_qubits = angles.shape
        real, double = angles.dtype, angles.dtype == torch.float64
        self.dtype = real if ansatz.is_real else (torch.complex128 if double else torch.complex64)
        self.groups = _groups(self.n_qubits)
        self.chain, self.unchain = chain_index(self.n_qubits, angles.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the probabilities and the final state, both (C, 2**N)."""
        state = torch.zeros(self.n_circuits, 2**self.n_qubits, dtype=self.dtype, device=self.angles.device)
        state[:, 0] = 1
        for layer in range(self.depth):
            for slot, axis in enumerate(self.axes):
                state = self._rotate(state, layer, slot, axis).index_select(-1, self.chain)
        return self._squared(state), state

    def backward(self, state: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of the angles, (C, L, R, N), given that of the probabilities, (C, 2**N)."""
        grads = torch.zeros_like(self.angles)
        # State and adjoint are replaced one at a time in a list, so that no caller's name keeps an old one alive.
        pair = [state, (state * grad).mul_(2)]
        del state
        for layer in range(self.depth - 1, -1, -1):
            for slot in range(len(self.axes) - 1, -1, -1):
                for i in range(2):
                    pair[i] = pair[i].index_select(-1, self.unchain)
                undo = self._undo_z if self.axes[slot] == "z" else self._undo_xy
                grads[:, layer, slot] = undo(pair, layer, slot)
        return grads

    @staticmethod
    def _squared(state: Tensor) -> Tensor:
        return state.real.square() + state.imag.square() if state.is_complex() else state.square()

    def _matrix(self, layer: int, slot: int, group: slice) -> tuple[Tensor, GroupTables]:
        """Return the Kronecker product of a group's rotations, (C, 2**g, 2**g): entry (i, j) depends on i ^ j."""
        tables = group_tables(group.stop - group.start, self.angles.device)
        half = self.angles[:, layer, slot, group] / 2
        flip = half.sin() if self.axes[slot] == "y" else half.sin() * -1j
        products = torch.cat((half.cos().to(flip.dtype), flip), -1)[:, tables.factors].prod(-1)  # (C, 2**g)
        size = products.shape[-1]
        matrix = products.index_select(-1, tables.flips).view(-1, size, size)
        return (matrix * tables.signs.to(half.dtype) if self.axes[slot] == "y" else matrix).to(self.dtype), tables

    def _rotate(self, state: Tensor, layer: int, slot: int, axis: str) -> Tensor:
        if axis == "z":
            return state * self._phases(layer, slot)
        for group in self.groups:
            matrix, _ = self._matrix(layer, slot, group)
            state = self._cycle(state, matrix)
        return state

    def _cycle(self, state: Tensor, matrix: Tensor) -> Tensor:
        """Multiply the leading group by `matrix` and move it behind the others; after all groups the order is back."""
        rows = state.view(self.n_circuits, matrix.shape[-1], -1)
        return torch.bmm(rows.transpose(1, 2), matrix.transpose(1, 2)).view(self.n_circuits, -1)

    def _undo_xy(self, pair: list[Tensor], layer: int, slot: int) -> Tensor:
        grads = []
        for group in self.groups:
            matrix, tables = self._matrix(layer, slot, group)
            rows = (self.n_circuits, matrix.shape[-1], -1)
            # Overlap of adjoint and state over all other qubits; generators commute with their own rotations.
            overlap = torch.bmm(pair[1].view(rows).conj(), pair[0].view(rows).transpose(1, 2)).flatten(1)
            if self.axes[slot] == "y":
                grads.append(
                    (overlap.real if overlap.is_complex() else overlap) @ tables.y_generators.to(self.angles.dtype)
                )
            else:
                grads.append(overlap.imag @ tables.x_generators.to(self.angles.dtype))
            inverse = matrix.mH
            for i in range(2):
                pair[i] = self._cycle(pair[i], inverse)
        return torch.cat(grads, -1)

    def _undo_z(self, pair: list[Tensor], layer: int, slot: int) -> Tensor:
        overlap = (pair[1].conj() * pair[0]).imag / 2  # (C, 2**N)
        low = self.n_qubits // 2
        high = self.n_qubits - low
        square = overlap.view(-1, 2**high, 2**low)
        grads = []
        for n_bits, dim in ((high, 2), (low, 1)):
            signs = group_tables(n_bits, self.angles.device).z_signs.to(self.angles.dtype)
            grads.append(square.sum(dim) @ signs)
        phases = self._phases(layer, slot).conj()
        for i in range(2):
            pair[i] = pair[i] * phases
        return torch.cat(grads, -1)

    def _phases(self, layer: int, slot: int) -> Tensor:
        """Return the diagonal of a layer of R_Z, (C, 2**N)."""
        low = self.n_qubits // 2
        high = self.n_qubits - low
        half = self.angles[:, layer, slot] / 2
        signs = [group_tables(n, self.angles.device).z_signs.to(half.dtype) for n in (high, low)]
        phase = (half[:, :high] @ signs[0].t())[:, :, None] + (half[:, high:] @ signs[1].t())[:, None, :]
        phase = phase.flatten(1)
        return torch.complex(phase.cos(), -phase.sin())
