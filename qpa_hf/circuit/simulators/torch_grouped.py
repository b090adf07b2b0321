"""Any number of qubits: rotation layers as matrices of a few qubits each, in turn.

For N = 7 the groups have 3 and 4 qubits: a layer is a matrix of 8 x 8 on the first ones, then one of 16 x 16 on the
others, and then a move of whole blocks, because the rest of the chain is in the order of the last matrix's columns.

Up to `MAX_STORED` numbers the backward pass uses the states that the forward pass stored. Beyond, it undoes the
layers, one circuit after the other, so that memory grows neither with depth nor, but for a state each, with circuits.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.simulators.tables import COMPLEX, has_tables
from qpa_hf.circuit.simulators.torch_grouped_tables import phases, tables

if TYPE_CHECKING:
    from qpa_hf.circuit.simulators.shapes import Angles, Probabilities

MAX_STORED = 2**18  # numbers in a state of all circuits; 16 such states still fit in most last-level caches
STATES = 2  # adjoint and one to spare, beside each circuit's last state


class Circuits:
    """A batch of circuits, ready to be run forwards and then backwards.

    An operation writes into a spare state, and the state that it has read becomes one, unless it is kept.

    Args:
        angles: the rotation angles in radians, (C, L, R, N), with R rotations a layer.
        axes: the axes of a layer's rotations: "x" or "y", then possibly "z".
        is_stored: whether the backward pass uses stored states, and does not undo the layers.
    """

    def __init__(self, angles: Tensor, axes: tuple[str, ...], is_stored: bool) -> None:
        self.n_circuits, self.depth, _, n_qubits = angles.shape
        self.angles = angles
        self.axes = axes
        self.is_stored = is_stored
        self.shape = (self.n_circuits, 2**n_qubits)
        self.dtype = angles.dtype if axes == ("y",) else COMPLEX[angles.dtype]
        self.tables = tables(n_qubits, axes, angles.dtype, angles.device)
        self.matrices = self._matrices()
        if "z" in axes:
            self.phases = phases(n_qubits, angles.dtype, angles.device)
            turns = angles[:, :, 1] @ self.phases.sums  # (C, L, H + 2 * B)
            self.turns = torch.complex(turns.cos(), turns.sin())
        self.states: list[Tensor] = []  # after each layer's rotations, or after the last layer's only
        self.spare: list[Tensor] = []

    def _matrices(self) -> list[tuple[Tensor, ...]]:
        """Return the matrices of each layer's groups, (C, k, k)."""
        t = self.tables
        rows = self.angles[:, :, 0].transpose(0, 1).reshape(self.depth * self.n_circuits, -1)
        waves = torch.addmm(t.shifts, rows, t.sums).sin_().split([len(entries) for entries in t.entries], 1)
        by_group = []
        for wave, entries, frame, k in zip(waves, t.entries, t.frames, t.sizes, strict=True):
            made = wave @ entries
            made = (made * frame if self.axes[0] == "x" else made).to(self.dtype)
            by_group.append(made.view(self.depth, -1, k, k).unbind(0))
        return list(zip(*by_group, strict=True))

    # With 24 qubits a state is 64 MiB, so states are passed around by hand: whoever needs one takes a spare one.
    def _take(self) -> Tensor:
        return self.spare.pop() if self.spare else torch.empty(self.shape, dtype=self.dtype, device=self.angles.device)

    def _give(self, state: Tensor) -> None:
        if not any(state is kept for kept in self.states[-1:]):
            self.spare.append(state)

    def forward(self, p: Tensor) -> None:
        """Fill `p` with the probabilities, (C, 2**N)."""
        state = self.matrices[0][0][:, :, 0].contiguous()  # of |0...0> only the first columns matter
        for matrix in self.matrices[0][1:]:
            state = (state.unsqueeze(2) * matrix[:, :, 0].unsqueeze(1)).flatten(1)
        for layer in range(self.depth):
            if layer:
                state = self._rotated(state, self.matrices[layer])
            # The last state is needed for the probabilities anyway; the others only if no layer is undone.
            if self.is_stored or layer == self.depth - 1:
                self.states.append(state)
            if layer < self.depth - 1:
                state = self._moved(self._turned(state, layer) if "z" in self.axes else state, self.tables.blocks)
        # No copy of the state: with many qubits each array of its size counts.
        squared = state.real.square() if state.is_complex() else torch.mul(state, state, out=self._take())
        if state.is_complex():
            squared.addcmul_(state.imag, state.imag)
        k = self.tables.sizes[-1]
        torch.mm(self._in_blocks(squared, self.tables.blocks).view(-1, k), self.tables.places, out=p.view(-1, k))
        self.spare.clear()

    def backward(self, grad: Tensor) -> Tensor:
        """Return the gradient of the angles, (C, L, R, N), given that of the probabilities, (C, 2**N).

        Without stored states, the last one is overwritten.
        """
        state = self.states[-1]
        adjoint = self._adjoint(state, grad)
        if not self.is_stored:
            self.states.clear()
        # The conjugate adjoint goes back through the layers. At each of them the overlaps of a group's basis states,
        # summed over all other qubits, hold the slopes of all angles of the group.
        overlaps, of_z = [], []
        for layer in range(self.depth - 1, -1, -1):
            state = self.states[layer] if self.is_stored else state
            overlaps.append(self._overlaps(adjoint, state))
            if "z" in self.axes:
                of_z.append(self._z_overlap(adjoint, state))
            if layer:
                adjoint = self._undone(adjoint, layer)
                if not self.is_stored:
                    state = self._undone(state, layer, is_adjoint=False)
        self.spare.clear()
        grads = []
        for found, of_group in zip(zip(*overlaps[::-1], strict=True), self.tables.generators, strict=True):
            overlap = torch.stack(found, 1)  # (C, L, k * k)
            grads.append((overlap.imag if self.axes[0] == "x" else overlap.real) @ of_group.t())
        grads = [torch.cat(grads, 2)] + ([torch.stack(of_z[::-1], 1)] if of_z else [])
        return torch.stack(grads, 2)

    def _adjoint(self, state: Tensor, grad: Tensor) -> Tensor:
        """Return the conjugate of the adjoint state: no product with it then needs a conjugated copy."""
        k = self.tables.sizes[-1]
        spread = torch.mm(grad.view(-1, k), self.tables.places.t()).view(self.shape)
        spread = self._in_blocks(spread, self.tables.inverse_blocks)
        if not state.is_complex():
            return spread.mul_(state)
        parts = torch.view_as_real(state) * spread.unsqueeze(-1)
        parts[..., 1].neg_()
        return torch.view_as_complex(parts)

    def _undone(self, state: Tensor, layer: int, is_adjoint: bool = True) -> Tensor:
        """Return a state, or the conjugate of an adjoint one, as it was after the rotations of the layer before."""
        matrices = tuple(m.mT if is_adjoint else m.mH.resolve_conj() for m in self.matrices[layer])
        state = self._moved(self._rotated(state, matrices), self.tables.inverse_blocks)
        return self._turned(state, layer - 1, is_inverse=not is_adjoint) if "z" in self.axes else state

    def _rows(self, state: Tensor, before: int, k: int) -> Tensor:
        return state.view(self.n_circuits * before, k, -1)

    def _rotated(self, state: Tensor, matrices: tuple[Tensor, ...]) -> Tensor:
        # Qubits before the group are the batch, those after it the columns.
        before = 1
        for matrix in matrices[:-1]:
            k = matrix.shape[-1]
            out = self._take()
            repeated = matrix.unsqueeze(1).expand(-1, before, -1, -1).reshape(-1, k, k)  # a view of one circuit's
            torch.bmm(repeated, self._rows(state, before, k), out=self._rows(out, before, k))
            self._give(state)
            state, before = out, before * k
        # The last group has no qubits after it: its matrix multiplies from the right, in one product a circuit.
        k = matrices[-1].shape[-1]
        out = self._take()
        rows = (self.n_circuits, -1, k)
        torch.bmm(state.view(rows), matrices[-1].mT, out=out.view(rows))
        self._give(state)
        return out

    def _in_blocks(self, values: Tensor, blocks: Tensor, out: Tensor | None = None) -> Tensor:
        """Return numbers, (C, 2**N), whose blocks are moved."""
        out = torch.empty_like(values) if out is None else out
        rows = (self.n_circuits, len(blocks), -1)
        torch.index_select(values.view(rows), 1, blocks, out=out.view(rows))
        return out

    def _moved(self, state: Tensor, blocks: Tensor) -> Tensor:
        out = self._in_blocks(state, blocks, self._take())
        self._give(state)
        return out

    def _turned(self, state: Tensor, layer: int, is_inverse: bool = False) -> Tensor:
        # The phase of a state is that of its row times that of its column, in the variant for the row's parity.
        n_rows = len(self.phases.parities)
        turns = self.turns[:, layer]
        turns = turns.conj_physical() if is_inverse else turns
        out = self._take()
        square = out.view(self.n_circuits, n_rows, -1)
        torch.index_select(turns[:, n_rows:].unflatten(1, (2, -1)), 1, self.phases.parities.int(), out=square)
        square.mul_(turns[:, :n_rows, None])
        out.mul_(state)
        self._give(state)
        return out

    def _overlaps(self, adjoint: Tensor, state: Tensor) -> list[Tensor]:
        """Return the overlaps of each group's basis states over all other qubits, (C, k * k).

        Without stored states, a few rows at a time: before they are added up, those of a late group outgrow a state.
        """
        found = []
        before = 1  # the basis states of the qubits before the group
        for k in self.tables.sizes[:-1]:
            a, b = (self._rows(x, before, k) for x in (adjoint, state))
            n_rows = len(a) if self.is_stored else max(1, MAX_STORED // k**2)
            parts = (torch.bmm(x, y.mT) for x, y in zip(a.split(n_rows), b.split(n_rows), strict=True))
            found.append(reduce(torch.add, (part.view(self.n_circuits, -1, k**2).sum(1) for part in parts)))
            before *= k
        a, b = (x.view(self.n_circuits, -1, self.tables.sizes[-1]) for x in (adjoint, state))
        return [*found, torch.bmm(a.mT, b).flatten(1)]

    def _z_overlap(self, adjoint: Tensor, state: Tensor) -> Tensor:
        """Return the gradient of a layer of R_Z, (C, N)."""
        # R_Z is diagonal: its slope is a sum of Im(adjoint * state) over basis states, with the eigenvalues as signs.
        constants = self.phases
        room = self._take()
        overlap = torch.view_as_real(room).view(2, *self.shape)[0]
        torch.mul(adjoint.real, state.imag, out=overlap).addcmul_(adjoint.imag, state.real)
        self._give(room)  # read once more, below, before anything is written
        square = overlap.view(self.n_circuits, len(constants.parities), -1)
        signs = (1 - 2 * constants.parities).expand(self.n_circuits, 1, -1)
        of_columns = torch.bmm(signs, square).squeeze(1) @ constants.of_columns
        return torch.cat((square.sum(2) @ constants.of_rows, of_columns), 1)


def can(ansatz: Ansatz, n_qubits: int, n_circuits: int) -> bool:
    """Return whether there are tables for the ansatz."""
    return has_tables(ansatz)


def n_arrays(ansatz: Ansatz, depth: int, n_qubits: int, n_circuits: int) -> int:
    """Return the memory of a forward and a backward pass, in arrays of 2**n_qubits real numbers."""
    arrays_a_state = 1 if ansatz.is_real else 2
    is_stored = n_circuits * 2**n_qubits <= MAX_STORED
    kept, together = (depth, n_circuits) if is_stored else (1, 1)  # states of each circuit, circuits at a time
    return n_circuits * (kept * arrays_a_state + 3) + together * STATES * arrays_a_state


def forward(angles: Angles, ansatz: Ansatz) -> tuple[Probabilities, list[Circuits]]:
    """Return the probabilities (C, 2**N) and what the backward pass needs, given angles (C, L, R, N) in radians."""
    p = angles.new_empty(len(angles), 2 ** angles.shape[-1])
    is_stored = p.numel() <= MAX_STORED
    n_together = len(angles) if is_stored else 1
    kept = [Circuits(part, ansatz.rotations, is_stored) for part in angles.split(n_together)]
    for circuits, out in zip(kept, p.split(n_together), strict=True):
        circuits.forward(out)
    return p, kept


def backward(angles: Angles, kept: list[Circuits], grad: Probabilities, ansatz: Ansatz) -> Angles:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N).

    Without stored states, the kept ones are overwritten.
    """
    parts = grad.split(len(grad) // len(kept))
    return torch.cat([circuits.backward(part) for circuits, part in zip(kept, parts, strict=True)])
