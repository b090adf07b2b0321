"""What simulates in a few calls, where there is a compiler for it."""

from __future__ import annotations

import functools
import importlib
import warnings
from importlib.util import find_spec
from types import ModuleType


@functools.cache
def fused(compiler: str, module: str) -> ModuleType | None:
    """Return a module of ours, or None where the compiler that it is written for is not installed.

    That is Triton on a GPU, which comes with torch for CUDA, and Numba on a CPU (`pip install 'qpa-hf[fast]'`).
    """
    if find_spec(compiler) is None:
        return None
    try:
        return importlib.import_module(module)
    except ImportError as error:  # such as a Numba that is older than the NumPy beside it
        warnings.warn(f"Circuits are simulated slowly, because {compiler} cannot be imported: {error}", stacklevel=2)
        return None
