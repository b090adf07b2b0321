"""The simulators of ideal circuits: one module each, and one table that says where they are used.

A simulator is a module of this room with

- `can(ansatz, n_qubits, n_circuits)`: whether it simulates such circuits, exactly as `reference` does;
- `n_arrays(ansatz, depth, n_qubits, n_circuits)`: memory of both passes in arrays of 2**n_qubits real numbers, which
  is a process's growth rounded up to a whole array; the bytes of a number are the caller's (`memory_bytes`);
- `forward(angles, ansatz)`: the probabilities (C, 2**N) and what the backward pass needs, given angles (C, L, R, N);
- `backward(angles, kept, grad, ansatz)`: the gradient of the angles, given that of the probabilities.

A simulator more is such a module and an entry of `SIMULATORS`. Read `reference` first.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from types import ModuleType

import torch

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.simulators.compilers import load
from qpa_hf.messages import shown


@dataclass(frozen=True)
class Simulator:
    """An entry of the table.

    Args:
        name: the name of its module in this folder.
        device: the type of the device that it runs on; None for all.
        compiler: the library that compiles it; None for what runs wherever torch does.
        is_automatic: whether it is chosen where it is the first that can, or only when it is asked for by name.
        is_traceable: whether `torch.compile` may see it as one operation; not if its backward pass needs autograd.
    """

    name: str
    device: str | None = None
    compiler: str | None = None
    is_automatic: bool = True
    is_traceable: bool = True

    @property
    def module(self) -> ModuleType | None:
        """The simulator's module; None where its compiler is missing."""
        return load(self.compiler, f"{__name__}.{self.name}")

    def fits(self, device: torch.device) -> bool:
        """Return whether it is made for a device."""
        return self.device in (None, device.type)

    def can(self, ansatz: Ansatz, n_qubits: int, n_circuits: int, device: torch.device) -> bool:
        """Return whether it is there and simulates such circuits on a device."""
        module = self.module if self.fits(device) else None
        return module is not None and module.can(ansatz, n_qubits, n_circuits)


# Fastest first, as timed on circuits that several of them can simulate.
SIMULATORS = (
    Simulator("triton_gates", device="cuda", compiler="triton"),
    Simulator("numba_walsh", device="cpu", compiler="numba"),
    Simulator("numba_gates", device="cpu", compiler="numba"),
    Simulator("torch_walsh"),
    Simulator("torch_folded"),
    Simulator("torch_grouped"),
    Simulator("reference"),
    Simulator("torchquantum", is_automatic=False, is_traceable=False),
)

Case = tuple[str, Ansatz, int, torch.device, torch.dtype]
_has_run: dict[Case, bool] = {}  # compiled simulations that were tried out in this process, and whether they ran


def find_simulator(
    ansatz: Ansatz,
    n_qubits: int,
    n_circuits: int,
    device: torch.device,
    dtype: torch.dtype,
    name: str | None = None,
) -> Simulator:
    """Return the simulator of that name, or the fastest that can and that has not failed when it was tried out.

    Raises:
        ImportError: if the compiler of the one that is named is missing.
        ValueError: if there is none of that name, or if it cannot simulate such circuits.
    """
    if name is not None:
        return _named(name, ansatz, n_qubits, n_circuits, device)
    return next(
        simulator
        for simulator in SIMULATORS
        if simulator.is_automatic
        and simulator.can(ansatz, n_qubits, n_circuits, device)
        and (simulator.compiler is None or _has_run.get((simulator.name, ansatz, n_qubits, device, dtype), True))
    )


def _named(name: str, ansatz: Ansatz, n_qubits: int, n_circuits: int, device: torch.device) -> Simulator:
    simulator = next((one for one in SIMULATORS if one.name == name), None)
    if simulator is None:
        known = ", ".join(repr(one.name) for one in SIMULATORS)
        raise ValueError(f"`simulator`={shown(name)} is not known. Choose one of {known}, or None for the fastest.")
    if simulator.can(ansatz, n_qubits, n_circuits, device):
        return simulator
    if simulator.fits(device) and simulator.module is None:
        raise ImportError(
            f"`simulator`={name!r} needs {simulator.compiler}, which cannot be imported. Install it, or set None for "
            "the fastest that is there."
        )
    raise ValueError(
        f"`simulator`={name!r} cannot simulate {n_circuits} circuit(s) of {n_qubits} qubits with {ansatz} on "
        f"{device.type!r}. Set None for the fastest that can."
    )


def is_traceable(name: str | None) -> bool:
    """Return whether a graph may hold what the simulator of that name does as one operation."""
    return name is None or all(one.is_traceable for one in SIMULATORS if one.name == name)


def find_running(
    ansatz: Ansatz,
    n_qubits: int,
    n_circuits: int,
    device: torch.device,
    dtype: torch.dtype,
    name: str | None = None,
) -> Simulator:
    """Return what `find_simulator` does, after compiled code has been tried out; if that fails, the next one.

    Each kind of circuit is tried out once in a process, before any result: circuits then have the same form forward
    and backward, and in every step. What is asked for by name is not tried out, and raises what its compiler raises.

    Raises:
        MemoryError, torch.OutOfMemoryError: if memory does not suffice, which says nothing of the compiler.
        ImportError, ValueError: as `find_simulator` does.
    """
    while True:
        simulator = find_simulator(ansatz, n_qubits, n_circuits, device, dtype, name)
        case = (simulator.name, ansatz, n_qubits, device, dtype)
        if simulator.compiler is None or name is not None or _has_run.get(case, False):
            return simulator
        _has_run[case] = _runs(simulator, ansatz, n_qubits, device, dtype)


def _runs(simulator: Simulator, ansatz: Ansatz, n_qubits: int, device: torch.device, dtype: torch.dtype) -> bool:
    """Compile and run both passes; return whether they ran, and warn at a simulator's first failure."""
    # A compiler may be installed and yet find no C compiler, no header, no registers for so many qubits.
    compiled = simulator.module
    assert compiled is not None
    # One layer of one circuit is enough, since nothing is compiled anew for more of them.
    angles = torch.zeros(1, 1, len(ansatz.rotations), n_qubits, dtype=dtype, device=device)
    grad = angles.new_zeros(1, 2**n_qubits)
    try:
        _, kept = compiled.forward(angles, ansatz)
        compiled.backward(angles, kept, grad, ansatz)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of a compiler, a linker, a driver: each has its own kinds
        if all(name != simulator.name or has_run for (name, *_), has_run in _has_run.items()):
            reason = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(
                f"Circuits are simulated slowly, because {simulator.compiler} cannot run them here: {reason}",
                stacklevel=2,
            )
        return False
    return True
