"""How functions are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Sums may be reordered, which vectorizes them; it is done once, when compiling, so that each call gives the same bits.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call, for this machine's processor; keep the machine code beside the source."""
    try:
        return numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # there is no folder that can be written: each process compiles anew
        return numba.njit(**OPTIONS)(function)
