"""How Numba compiles functions here, and which circuits it serves.

With few qubits it is the number of torch operations that takes time, not the arithmetic: what is compiled takes a call
or two forward and one backward, for all circuits together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz

MAX_QUBITS = 16  # as timed: beyond, torch's matrix products win

# Sums may be reordered, which vectorizes them; it is done once, when compiling, so that each call gives the same bits.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, at its first call, for this machine's processor.

    The machine code is kept beside the source. What the function calls of ours must be `inlined`.
    """
    try:
        return numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # there is no folder that can be written: each process compiles anew
        return numba.njit(**OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of those that call it.

    As functions of their own they would be optimized twice, alone and with their callers. A process that compiles
    links the first kind of code, one that loads what was kept has the second alone, and sums would differ in their
    last bits.
    """
    return numba.njit(forceinline=True, **OPTIONS)(function)


def knows(ansatz: Ansatz, n_qubits: int, n_circuits: int) -> bool:
    """Return whether a layer is R_X or R_Y, then possibly R_Z, each before the chain of CNOTs, on few qubits."""
    turn, *phases = ansatz.rotations
    is_known = turn in ("x", "y") and phases in ([], ["z"]) and ansatz.is_cnot_chain
    return is_known and n_qubits <= MAX_QUBITS


def copied(angles: Tensor) -> Tensor:
    """Return angles in memory of their own, which NumPy may see."""
    # Memory that NumPy has seen cannot be resized, as FSDP2 does with that of parameters.
    return angles.detach().clone(memory_format=torch.contiguous_format)
