"""Circuits on a CPU, compiled by Numba: a call or two forward and one backward, for all circuits together.

With few qubits it is the number of torch operations that takes time, not the arithmetic.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qpa_hf.circuit.compiled import gates, walsh

MAX_QUBITS = 16  # measured: beyond, torch's matrix products win


def forward(angles: Tensor, axes: tuple[str, ...]) -> tuple[Tensor, Any]:
    """Return the probabilities (C, 2**N) and what the backward pass needs, given angles (C, L, R, N) in radians."""
    return (walsh if axes == ("x",) else gates).forward(angles.detach().contiguous(), axes)


def backward(angles: Tensor, kept: Any, grad: Tensor, axes: tuple[str, ...]) -> Tensor:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N)."""
    return (walsh if axes == ("x",) else gates).backward(angles.detach().contiguous(), kept, grad, axes)
