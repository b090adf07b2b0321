"""Modules whose code is compiled when it is first called: loaded where their compiler is installed."""

from __future__ import annotations

import functools
import importlib
import warnings
from importlib.util import find_spec
from types import ModuleType

from qpa_hf.circuit.ansatz import Ansatz

# Every compiled form takes one circuit after another, so its working states are counted once for all circuits.
ARRAYS = 4  # of each circuit, beside its last state
STATES = 4  # of all circuits together: a state and its adjoint, twice


@functools.cache
def load(compiler: str | None, module: str) -> ModuleType | None:
    """Return a module of ours, or None where the compiler that it is written for is not installed.

    That is Triton on a GPU, which comes with torch for CUDA, and Numba on a CPU (`pip install 'qpa-hf[fast]'`).

    Args:
        compiler: the name of the library; None for a module that needs no more than torch.
        module: the full name of the module.
    """
    if compiler is None:
        return importlib.import_module(module)
    if find_spec(compiler) is None:
        return None
    try:
        return importlib.import_module(module)
    except ImportError as error:  # such as a Numba that is older than the NumPy beside it
        warnings.warn(f"Circuits are simulated slowly, because {compiler} cannot be imported: {error}", stacklevel=2)
        return None


def n_arrays(ansatz: Ansatz, depth: int, n_qubits: int, n_circuits: int) -> int:
    """Return the memory of both passes of compiled code, in arrays of 2**n_qubits real numbers.

    All compiled simulators keep the last state alone, and undo the gates one circuit after the other.
    """
    arrays_a_state = 1 if ansatz.is_real else 2
    return n_circuits * (ARRAYS + arrays_a_state) + STATES * arrays_a_state
