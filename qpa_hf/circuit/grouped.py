"""Any ansatz, any number of qubits: rotation layers as matrices of a few qubits each, in turn.

The backward pass undoes the layers instead of storing the states, so memory does not grow with depth. All work is
done in buffers of one state each, made once: an operation out of place writes into the free one and trades places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.tables import GroupTables, chain_tables, group_tables, z_signs

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
        self.chain = chain_tables(self.n_qubits, angles.device)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the probabilities and the final state, both (C, 2**N)."""
        state = torch.zeros(self.n_circuits, 2**self.n_qubits, dtype=self.dtype, device=self.angles.device)
        state[:, 0] = 1
        buffers = [state, torch.empty_like(state)]  # the last one is free
        for layer in range(self.depth):
            for slot, axis in enumerate(self.axes):
                if axis == "z":
                    self._turn(buffers[0], self._phases(layer, slot))
                else:
                    for group in self.groups:
                        self._cycle(buffers, 0, self._matrix(layer, slot, group)[0])
                self._apply_chain(buffers)
        state = buffers[0]
        p = state.real.square() if state.is_complex() else state.square()
        return (p.addcmul_(state.imag, state.imag) if state.is_complex() else p), state

    def backward(self, state: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of the angles, (C, L, R, N), given that of the probabilities, (C, 2**N).

        The state is overwritten: it becomes a buffer.
        """
        grads = torch.zeros_like(self.angles)
        buffers = [state, self._adjoint(state, grad), torch.empty_like(state)]  # the last one is free
        for layer in range(self.depth - 1, -1, -1):
            for slot in range(len(self.axes) - 1, -1, -1):
                for which in range(2):
                    self._undo_chain(buffers, which)
                undo = self._undo_z if self.axes[slot] == "z" else self._undo_xy
                grads[:, layer, slot] = undo(buffers, layer, slot)
        return grads

    @staticmethod
    def _adjoint(state: Tensor, grad: Tensor) -> Tensor:
        """Return the conjugate of the adjoint state: no product with it then needs a conjugated copy."""
        if not state.is_complex():
            return (state * grad).mul_(2)
        parts = torch.view_as_real(state) * grad.unsqueeze(-1)
        parts[..., 0] *= 2
        parts[..., 1] *= -2
        return torch.view_as_complex(parts)

    def _matrix(self, layer: int, slot: int, group: slice) -> tuple[Tensor, GroupTables]:
        """Return the Kronecker product of a group's rotations, (C, 2**g, 2**g): entry (i, j) depends on i ^ j."""
        tables = group_tables(group.stop - group.start, self.angles.device)
        half = self.angles[:, layer, slot, group] / 2
        flip = half.sin() if self.axes[slot] == "y" else half.sin() * -1j
        products = torch.cat((half.cos().to(flip.dtype), flip), -1)[:, tables.factors].prod(-1)  # (C, 2**g)
        size = products.shape[-1]
        matrix = products.index_select(-1, tables.flips).view(-1, size, size)
        return (matrix * tables.signs.to(half.dtype) if self.axes[slot] == "y" else matrix).to(self.dtype), tables

    def _cycle(self, buffers: list[Tensor], which: int, matrix: Tensor) -> None:
        """Multiply the leading group by `matrix` and move it behind the others; after all groups the order is back."""
        rows = buffers[which].view(self.n_circuits, matrix.shape[-1], -1)
        out = buffers[-1].view(self.n_circuits, -1, matrix.shape[-1])
        torch.bmm(rows.transpose(1, 2), matrix.transpose(1, 2), out=out)
        buffers[which], buffers[-1] = buffers[-1], buffers[which]

    def _apply_chain(self, buffers: list[Tensor]) -> None:
        state, free = (x.view(self.n_circuits, len(self.chain.rows), -1) for x in (buffers[0], buffers[-1]))
        torch.index_select(state, 1, self.chain.rows, out=free)
        self._move_columns(free, self.chain.columns, state)

    def _undo_chain(self, buffers: list[Tensor], which: int) -> None:
        state, free = (x.view(self.n_circuits, len(self.chain.rows), -1) for x in (buffers[which], buffers[-1]))
        self._move_columns(state, self.chain.inverse_columns, free)
        torch.index_select(free, 1, self.chain.inverse_rows, out=state)

    @staticmethod
    def _move_columns(source: Tensor, columns: Tensor, out: Tensor) -> None:
        source, out = (x.unflatten(1, (-1, 2)) for x in (source, out))  # (C, rows / 2, 2, columns)
        torch.gather(source, 3, columns.expand(source.shape), out=out)

    def _undo_xy(self, buffers: list[Tensor], layer: int, slot: int) -> Tensor:
        grads = []
        for group in self.groups:
            matrix, tables = self._matrix(layer, slot, group)
            rows = (self.n_circuits, matrix.shape[-1], -1)
            # Overlap of adjoint and state over all other qubits; generators commute with their own rotations.
            overlap = torch.bmm(buffers[1].view(rows), buffers[0].view(rows).transpose(1, 2)).flatten(1)
            if self.axes[slot] == "y":
                grads.append(
                    (overlap.real if overlap.is_complex() else overlap) @ tables.y_generators.to(self.angles.dtype)
                )
            else:
                grads.append(overlap.imag @ tables.x_generators.to(self.angles.dtype))
            self._cycle(buffers, 0, matrix.mH)
            self._cycle(buffers, 1, matrix.mT)
        return torch.cat(grads, -1)

    def _undo_z(self, buffers: list[Tensor], layer: int, slot: int) -> Tensor:
        state, adjoint, free = buffers
        overlap = torch.view_as_real(free).view(2, *state.shape)[0]  # the imaginary part of the product, (C, 2**N)
        torch.mul(adjoint.real, state.imag, out=overlap).addcmul_(adjoint.imag, state.real)
        low = self.n_qubits // 2
        high = self.n_qubits - low
        square = overlap.view(-1, 2**high, 2**low)
        grads = []
        for n_bits, dim in ((high, 2), (low, 1)):
            grads.append(square.sum(dim) @ z_signs(n_bits, self.angles.dtype, self.angles.device) / 2)
        high_phases, low_phases = self._phases(layer, slot)
        self._turn(state, (high_phases.conj(), low_phases.conj()))
        self._turn(adjoint, (high_phases, low_phases))
        return torch.cat(grads, -1)

    def _turn(self, state: Tensor, phases: tuple[Tensor, Tensor]) -> None:
        high, low = phases
        square = state.view(self.n_circuits, high.shape[1], low.shape[1])
        square.mul_(high[:, :, None]).mul_(low[:, None, :])

    def _phases(self, layer: int, slot: int) -> tuple[Tensor, Tensor]:
        """Return the diagonal of a layer of R_Z as a product of two, of the high and of the low qubits."""
        half = self.angles[:, layer, slot] / 2
        low = self.n_qubits // 2
        phases = []
        for part in half.split((self.n_qubits - low, low), -1):
            phase = part @ z_signs(part.shape[-1], half.dtype, half.device).t()
            phases.append(torch.complex(phase.cos(), -phase.sin()))
        return phases[0], phases[1]
