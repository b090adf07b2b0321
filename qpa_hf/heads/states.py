"""Batches of real states, shape (..., 2**n_qubits, batch), qubit 0 the most significant bit: made, rotated, read."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def amplitude_states(embeddings: Tensor, n_qubits: int, constant: float) -> Tensor:
    """Return embeddings as amplitudes, padded with zeros.

    Measured values are even in the amplitudes: without a constant one beside them, an embedding and its negative
    would be the same to every circuit.

    Args:
        embeddings: shape (batch, n_features), any length; only the direction counts.
        n_qubits: at least log2 of n_features, of n_features + 1 with a constant.
        constant: amplitude put behind the embedding of length 1, before all are scaled to length 1 again; 0 for none.

    Returns:
        Shape (2**n_qubits, batch).
    """
    directions = F.normalize(embeddings, dim=1)
    if constant:
        directions = F.normalize(
            torch.cat((directions, directions.new_full((len(directions), 1), constant)), 1), dim=1
        )
    return F.pad(directions, (0, 2**n_qubits - directions.shape[1])).t().contiguous()


def product_states(angles: Tensor) -> Tensor:
    """Return the states that R_Y makes of |0...0>.

    Args:
        angles: radians, shape (n_qubits, batch).

    Returns:
        Shape (2**n_qubits, batch).

    Example:
        >>> product_states(torch.tensor([[torch.pi], [0.0]])).round(decimals=3).squeeze()  # |10>
        tensor([-0.,  0.,  1.,  0.])
    """
    first, *others = torch.stack((torch.cos(angles / 2), torch.sin(angles / 2)), 1)  # (2, batch) each
    states = first
    for qubit in others:
        states = (states.unsqueeze(1) * qubit).flatten(0, 1)
    return states


def rotate(states: Tensor, angles: Tensor) -> Tensor:
    """Apply R_Y to all qubits, other angles for each state of the batch.

    Args:
        states: shape (2**n_qubits, batch).
        angles: radians, shape (n_qubits, batch).

    Returns:
        Shape (2**n_qubits, batch).
    """
    n_qubits, batch = angles.shape
    cos, sin = torch.cos(angles.t() / 2), torch.sin(angles.t() / 2)
    turns = torch.stack((cos, -sin, sin, cos), -1).view(batch, n_qubits, 2, 2)
    n_high = n_qubits // 2
    rows = states.t().reshape(batch, 2**n_high, -1)
    rows = torch.bmm(rows, _kronecker(turns[:, n_high:]).mT)
    if n_high:
        rows = torch.bmm(_kronecker(turns[:, :n_high]), rows)
    return rows.reshape(batch, -1).t()


def _kronecker(matrices: Tensor) -> Tensor:
    """Return the product over dimension 1: (batch, n, 2, 2) to (batch, 2**n, 2**n)."""
    product, *others = matrices.unbind(1)
    for matrix in others:
        product = torch.einsum("bij,bkl->bikjl", product, matrix).flatten(1, 2).flatten(2, 3)
    return product


def z_expectations(states: Tensor, n_measured: int) -> Tensor:
    """Return the Pauli-Z expectations of the first qubits.

    Args:
        states: shape (n_circuits, 2**n_qubits, batch), of length 1.
        n_measured: how many qubits.

    Returns:
        Shape (n_circuits, n_measured, batch), between -1 and 1.
    """
    n_qubits = states.shape[1].bit_length() - 1
    return torch.matmul(z_signs(n_qubits, n_measured).to(states), states.square())


def z_signs(n_qubits: int, n_measured: int) -> Tensor:
    """Return the eigenvalues of Pauli-Z on the first qubits, shape (n_measured, 2**n_qubits).

    Example:
        >>> z_signs(2, 2)
        tensor([[ 1,  1, -1, -1],
                [ 1, -1,  1, -1]])
    """
    places = torch.arange(n_qubits - 1, n_qubits - 1 - n_measured, -1)
    return 1 - 2 * (torch.arange(2**n_qubits) >> places[:, None] & 1)
