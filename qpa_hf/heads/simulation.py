"""One circuit for a whole batch of states, forward and backward: windows, rotations, expectations.

The backward pass is written out, for two reasons: all intermediate states lie in memory that is used again, and all
angles of an upload have their gradients from the states after it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpa_hf.heads.scratch import Scratch
from qpa_hf.heads.states import product, slopes, turn_

Order = tuple[int, ...]  # qubits from the most to the least significant bit of a state's index


class Step(NamedTuple):
    """What happens to the states, after their qubits have been put in order: the front ones are those of a window.

    Args:
        order: the order of the qubits.
        is_turn: whether the step is an upload, or else a window.
    """

    order: Order
    is_turn: bool = False


def plan(segments: tuple[tuple[Order, ...], ...], n_qubits: int) -> tuple[Step, ...]:
    """Return the steps of a circuit.

    Args:
        segments: the qubits of the windows; between two segments lies an upload.
        n_qubits: the number of qubits of the circuit.
    """
    # A window's qubits come to the front, where its matrix is a batched product; the others keep their order, so that
    # whole runs of them are copied at once.
    identity = tuple(range(n_qubits))
    steps = []
    for index, windows in enumerate(segments):
        steps += [Step(identity, is_turn=True)] if index else []
        order = identity
        for front in windows:
            order = (*front, *(q for q in order if q not in front))
            steps.append(Step(order))
    return tuple(steps)


@lru_cache(maxsize=4096)
def _transfer(source: Order, target: Order) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return sizes and permutation that bring qubits into another order; neighbours that stay so are one dimension."""
    # From (0, 1, 2, 3) to (2, 3, 0, 1) the runs are 23 and 01: two dimensions of 4 change places, and not four of 2.
    runs: list[list[int]] = []
    for qubit in target:
        place = source.index(qubit)
        if runs and runs[-1][-1] + 1 == place:
            runs[-1].append(place)
        else:
            runs.append([place])
    ascending = sorted(runs)
    return tuple(2 ** len(run) for run in ascending), tuple(ascending.index(run) for run in runs)


def _reorder(states: Tensor, source: Order, target: Order, out: Tensor) -> Tensor:
    """Copy states (E, 2**n_qubits, batch) to `out` with their qubits in another order."""
    sizes, places = _transfer(source, target)
    n_circuits, _, batch = states.shape
    moved = states.view(n_circuits, *sizes, batch).permute(0, *(1 + place for place in places), len(sizes) + 1)
    out.view(moved.shape).copy_(moved)
    return out


class _Simulated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        start: Tensor | None,
        uploads: Tensor,
        matrices: Tensor,
        observables: Tensor,
        steps: tuple[Step, ...],
        is_kept: bool,
    ) -> Tensor:
        n_qubits = observables.shape[1].bit_length() - 1
        shape = (len(matrices), observables.shape[1], uploads.shape[1])
        # The states at the start, the input of each window, the output of each upload, and the last states.
        kept = Scratch((len(steps) + 2 if is_kept else 2, *shape), uploads)
        other = Scratch(shape, uploads)
        states = product(uploads, kept.tensor[0, 0])[None] if start is None else start
        order = identity = tuple(range(n_qubits))
        windows = iter(matrices.transpose(0, 1).flatten(1, 2).unbind())  # (n_circuits * V, D, D) each
        for i, step in enumerate(steps, 1):
            slot = _reorder(states, order, step.order, kept.tensor[i if is_kept else i % 2])
            order = step.order
            states = slot
            if step.is_turn:
                turn_(slot[0], uploads)
            else:
                states = _multiply(next(windows), slot, other.tensor)
        last = _reorder(states, order, identity, kept.tensor[-1])
        if is_kept:
            ctx.save_for_backward(uploads, matrices, observables)
            ctx.kept = kept
            ctx.steps = steps
            ctx.is_product = start is None
        return observables @ torch.mul(last, last, out=other.tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None, None]:
        uploads, matrices, observables = ctx.saved_tensors
        kept = ctx.kept.tensor
        steps = ctx.steps
        pair = Scratch((2, *kept.shape[1:]), kept)
        g, spare = pair.tensor
        # From here on `g` is the gradient of the states, taken back step by step. A window y = M x has the gradients
        # g x^T for M and M^T g for x; an upload is undone by turning the other way.
        torch.matmul(observables.t(), grad, out=g).mul_(kept[-1]).mul_(2)
        identity = order = tuple(range(kept.shape[2].bit_length() - 1))
        grad_uploads = torch.zeros_like(uploads)
        flat = matrices.transpose(0, 1).flatten(1, 2)  # (windows, n_circuits * V, D, D)
        grad_flat = torch.empty_like(flat)
        windows = zip(reversed(flat.mT.unbind()), reversed(grad_flat.unbind()), strict=True)
        for slot, step in zip(reversed(kept[1:-1].unbind()), reversed(steps), strict=True):
            g, spare = _reorder(g, order, step.order, spare), g
            order = step.order
            if step.is_turn:
                grad_uploads += slopes(slot[0], g[0], spare[0])
                turn_(g[0], -uploads)
            else:
                transposed, grad_window = next(windows)
                rows = (len(transposed), transposed.shape[-1], -1)
                torch.bmm(g.view(rows), slot.view(rows).mT, out=grad_window)
                g, spare = _multiply(transposed, g, spare), g
        g, spare = _reorder(g, order, identity, spare), g
        grad_matrices = grad_flat.unflatten(1, (len(matrices), -1)).transpose(0, 1)
        if ctx.is_product:
            return None, grad_uploads + slopes(kept[0, 0], g[0], spare[0]), grad_matrices, None, None, None
        return (g.clone() if ctx.needs_input_grad[0] else None), grad_uploads, grad_matrices, None, None, None


def _multiply(matrices: Tensor, states: Tensor, out: Tensor) -> Tensor:
    """Apply a window's matrices (n_circuits * V, D, D) to states whose front qubits are the window's."""
    rows = (len(matrices), matrices.shape[-1], -1)
    torch.bmm(matrices, states.view(rows), out=out.view(rows))
    return out


def simulate(
    start: Tensor | None, uploads: Tensor, matrices: Tensor, observables: Tensor, steps: tuple[Step, ...]
) -> Tensor:
    """Return expectations of diagonal observables after a circuit, once differentiable.

    Args:
        start: the states before it, shape (n_circuits, 2**n_qubits, batch); None for those that the first upload makes
            of |0...0>.
        uploads: the angles of the uploads in radians, from -pi to pi, shape (n_qubits, batch); (0, batch) without any.
        matrices: the matrices of all windows in order, shape (n_circuits, windows, V, D, D).
        observables: the eigenvalues of the observables, shape (n_observables, 2**n_qubits).
        steps: the steps of the circuit, see `plan`.

    Returns:
        The expectations, shape (n_circuits, n_observables, batch).
    """
    needs_grad = any(t is not None and t.requires_grad for t in (start, uploads, matrices))
    is_kept = needs_grad and torch.is_grad_enabled()
    return _Simulated.apply(start, uploads, matrices, observables, steps, is_kept)
