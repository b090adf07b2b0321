"""Circuits on a CPU, compiled by Numba: a call or two forward and one backward, for all circuits together.

With few qubits it is the number of torch operations that takes time, not the arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qpa_hf.circuit.compiled import gates, walsh

MAX_QUBITS = 16  # measured: beyond, torch's matrix products win


def _own(angles: Tensor) -> Tensor:
    # A copy, because memory that NumPy has seen cannot be resized, as FSDP2 does with that of parameters.
    return angles.detach().clone(memory_format=torch.contiguous_format)


def forward(angles: Tensor, axes: tuple[str, ...]) -> tuple[Tensor, Any]:
    """Return the probabilities (C, 2**N) and what the backward pass needs, given angles (C, L, R, N) in radians."""
    return (walsh if axes == ("x",) else gates).forward(_own(angles), axes)


def backward(angles: Tensor, kept: Any, grad: Tensor, axes: tuple[str, ...]) -> Tensor:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N)."""
    return (walsh if axes == ("x",) else gates).backward(_own(angles), kept, grad, axes)
