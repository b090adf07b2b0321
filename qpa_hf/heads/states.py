"""Batches of real states, shape (..., 2**n_qubits, batch), qubit 0 the most significant bit: made, rotated, read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def amplitude_states(embeddings: Tensor, n_qubits: int, constant: float) -> Tensor:
    """Return embeddings as amplitudes, padded with zeros.

    Measured values are even in the amplitudes: without a constant one beside them, an embedding and its negative
    would be the same to every circuit.

    Args:
        embeddings: the embeddings, shape (batch, n_features), of any length; only the direction counts.
        n_qubits: the number of qubits, at least log2 of n_features, or of n_features + 1 with a constant.
        constant: the amplitude that is put behind the embedding of length 1, before all of it is scaled to length 1
            again; 0 for none.

    Returns:
        The amplitudes, shape (2**n_qubits, batch).
    """
    # Squares of very large or small numbers would leave the range. No gradient: the direction depends on no scale.
    largest = embeddings.detach().abs().amax(1, keepdim=True)
    directions = F.normalize(embeddings / largest.masked_fill(largest == 0, 1), dim=1)
    if constant:
        directions = F.normalize(
            torch.cat((directions, directions.new_full((len(directions), 1), constant)), 1), dim=1
        )
    return F.pad(directions.t(), (0, 0, 0, 2**n_qubits - directions.shape[1]))


def product_states(angles: Tensor) -> Tensor:
    """Return the states that R_Y makes of |0...0>, once differentiable.

    Args:
        angles: the rotation angles in radians, shape (n_qubits, batch).

    Returns:
        The amplitudes, shape (2**n_qubits, batch).

    Example:
        >>> product_states(torch.tensor([[torch.pi], [0.0]])).abs().round(decimals=3).squeeze()  # |10>
        tensor([0., 0., 1., 0.])
    """
    return _Rotated.apply(None, angles)


def rotate(states: Tensor, angles: Tensor) -> Tensor:
    """Apply R_Y to all qubits, other angles for each state of the batch; once differentiable.

    Args:
        states: the amplitudes, shape (2**n_qubits, batch).
        angles: the rotation angles in radians, shape (n_qubits, batch), from -pi to pi: towards 2 pi precision would
            be lost.

    Returns:
        The rotated amplitudes, shape (2**n_qubits, batch).
    """
    return _Rotated.apply(states, angles)


def _halves(states: Tensor, qubit: int) -> tuple[Tensor, Tensor]:
    """Return the amplitudes where a qubit is 0 and where it is 1, as views."""
    low, high = states.view(2**qubit, 2, -1, states.shape[1]).unbind(1)
    return low, high


def turn_(states: Tensor, angles: Tensor) -> Tensor:
    """Rotate states in place: three shears make a rotation; see `rotate`."""
    # A rotation by t is a shear of the first axis by -tan(t / 2), one of the second by sin(t), and the first one
    # again: each writes one half from the other, so no copy of a state is needed. R_Y(a) rotates by t = a / 2.
    for qubit, (tan, sin) in enumerate(zip(torch.tan(angles / 4), torch.sin(angles / 2), strict=True)):
        low, high = _halves(states, qubit)
        low.addcmul_(high, tan, value=-1)
        high.addcmul_(low, sin)
        low.addcmul_(high, tan, value=-1)
    return states


def product(angles: Tensor, out: Tensor) -> Tensor:
    """Write what `product_states` returns to `out`, without a gradient of its own."""
    states, *others = torch.stack((torch.cos(angles / 2), torch.sin(angles / 2)), 1)  # (2, batch) each
    for qubit in others[:-1]:
        states = (states.unsqueeze(1) * qubit).flatten(0, 1)
    if not others:
        return out.copy_(states)
    torch.mul(states.unsqueeze(1), others[-1], out=out.view(len(states), 2, -1))
    return out


def slopes(rotated: Tensor, grad: Tensor, spare: Tensor) -> Tensor:
    """Return the gradient of the angles of R_Y on all qubits, which commute, from what comes out of them.

    Args:
        rotated: the states after the rotations, shape (2**n_qubits, batch).
        grad: the gradient of these states, of the same shape.
        spare: memory of the same shape, which is overwritten.

    Returns:
        The gradient of the angles, shape (n_qubits, batch).
    """
    # R_Y's generator takes |0> to |1> and |1> to -|0>, and half of it is the derivative: the slope is half of
    # <grad of 1 | state of 0> - <grad of 0 | state of 1>, for each qubit, without undoing a rotation.
    found = []
    for qubit in range(len(rotated).bit_length() - 1):
        low, high = _halves(rotated, qubit)
        grad_low, grad_high = _halves(grad, qubit)
        product = torch.mul(grad_high, low, out=spare[: len(spare) // 2].view(low.shape))
        found.append(product.addcmul_(grad_low, high, value=-1).sum((0, 1)))
    return torch.stack(found) / 2


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor | None, angles: Tensor) -> Tensor:
        if states is None:
            rotated = product(angles, angles.new_empty(2 ** len(angles), angles.shape[1]))
        else:
            rotated = turn_(states.clone(memory_format=torch.contiguous_format), angles)
        ctx.save_for_backward(rotated, angles)
        return rotated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        rotated, angles = ctx.saved_tensors
        grad = grad.contiguous()
        turned_back = turn_(grad.clone(), -angles) if ctx.needs_input_grad[0] else None
        return turned_back, slopes(rotated, grad, torch.empty_like(grad))


def z_signs(n_qubits: int, n_measured: int, device: torch.device | None = None) -> Tensor:
    """Return the eigenvalues of Pauli-Z on the first qubits, shape (n_measured, 2**n_qubits).

    Example:
        >>> z_signs(2, 2)
        tensor([[ 1,  1, -1, -1],
                [ 1, -1,  1, -1]])
    """
    places = torch.arange(n_qubits - 1, n_qubits - 1 - n_measured, -1, device=device)
    return 1 - 2 * (torch.arange(2**n_qubits, device=device) >> places[:, None] & 1)
