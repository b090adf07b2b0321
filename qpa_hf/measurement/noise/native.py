"""A circuit as a device runs it: CZ gates, and between them runs of sqrt(X) and virtual R_Z on each qubit.

CNOT(q, q+1) is CZ between two Hadamard gates on q+1, and what stands between two CZs on a qubit is one run. A run is
R_Z, then nothing or one or two times (sqrt(X), R_Z); only one of its R_Z depends on an angle, and only sqrt(X) takes
time and errs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qpa_hf.circuit.ansatz import Ansatz, find_ansatz
from qpa_hf.measurement.noise.snapshot import Snapshot

PI = math.pi

Turn = tuple[int, float]  # (k, c) stands for R_Z(k * angle + c)
Run = tuple[Turn, ...]  # in time order, with a sqrt(X) between any two

HADAMARD: Run = ((0, PI / 2), (0, PI / 2))
# A rotation by whether a Hadamard comes before it and whether one comes after it, up to a global phase. Virtual R_Z
# cost nothing on a device, so Hadamards that are merged into a run are free: R_X with one on each side is R_Z alone.
_Y: dict[tuple[bool, bool], Run] = {
    (False, False): ((0, 0.0), (1, PI), (0, PI)),
    (False, True): ((0, PI), (-1, 1.5 * PI), (0, PI)),
    (True, False): ((0, PI), (1, 1.5 * PI), (0, PI)),
    (True, True): ((0, 0.0), (-1, PI), (0, PI)),
}
_X: dict[tuple[bool, bool], Run] = {
    (False, False): ((0, PI / 2), (1, PI), (0, PI / 2)),
    (False, True): ((0, PI / 2), (1, PI / 2)),
    (True, False): ((1, PI / 2), (0, PI / 2)),
    (True, True): ((1, 0.0),),
}
# A Hadamard on each side makes R_X of R_Z.
_Z = {key: _X[not key[0], not key[1]] for key in _X}
ROTATIONS = {"x": _X, "y": _Y, "z": _Z}


@dataclass(frozen=True)
class NativeCircuit:
    """The gates of a circuit on a line of qubits, slot by slot; a slot is one rotation layer and its chain of CNOTs.

    In each slot every qubit has its run; then CZ(q, q+1) for q = 0 .. n_qubits-2, a Hadamard on q+1 after each but
    the last, whose Hadamard is in the next slot's run. After the last slot a Hadamard on the last qubit remains.

    Args:
        runs: the run of each slot and qubit.
        idle: the times in seconds for which qubits q and q+1 wait after each slot's CZ(q, q+1).
    """

    runs: tuple[tuple[Run, ...], ...]
    idle: tuple[tuple[tuple[float, float], ...], ...]

    @property
    def n_qubits(self) -> int:
        """Width of the circuit."""
        return len(self.runs[0])


def _runs(axis: str, n_qubits: int, is_first: bool) -> tuple[Run, ...]:
    # Every target of a CNOT has a Hadamard after its rotation, which opens the CNOT; that is all qubits but the first.
    # Only the last qubit still has one before it, which closed its CNOT in the slot before.
    last = n_qubits - 1
    return tuple(ROTATIONS[axis][not is_first and qubit == last and last > 0, qubit > 0] for qubit in range(n_qubits))


def _idle_times(runs: tuple[tuple[Run, ...], ...], snapshot: Snapshot) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return the waiting times if every gate runs as late as possible and all qubits are measured at once.

    Waiting before a qubit's first gate changes nothing: it is in |0>. Between a run and the CZ after it there is none.
    """
    n_qubits = len(runs[0])
    qubits = snapshot.line_qubits(n_qubits)
    couplings = snapshot.line_couplings(n_qubits)
    # Time runs backwards here, from the measurement on: the later of two qubits' next gates decides when their CZ
    # ends, and the other qubit waits for the difference.
    free = [0.0] * n_qubits  # how long before the measurement each qubit's next gate begins
    if n_qubits > 1:
        free[-1] = qubits[-1].sx_duration
    idle: list[tuple[tuple[float, float], ...]] = []
    for slot in reversed(runs):
        waits = []
        for left in range(n_qubits - 2, -1, -1):
            right = left + 1
            if right < n_qubits - 1:
                free[right] += qubits[right].sx_duration  # the Hadamard
            end = max(free[left], free[right])
            waits.append((end - free[left], end - free[right]))
            free[left] = free[right] = end + couplings[left].cz_duration
        for qubit, run in enumerate(slot):
            free[qubit] += (len(run) - 1) * qubits[qubit].sx_duration
        idle.append(tuple(reversed(waits)))
    return tuple(reversed(idle))


def find_native(name: str) -> Ansatz:
    """Return the ansatz called `name`, if a device runs it: any rotations, and CNOTs along a line of qubits.

    Raises:
        ValueError: for an unknown ansatz, or one with another entangler.
    """
    ansatz = find_ansatz(name)
    if not ansatz.is_cnot_chain:
        raise ValueError(
            f"`ansatz`={name!r} has the entangler {ansatz.entangler!r}, but noise and devices have 'cnot_chain' only. "
            "Use an ansatz that has it, or ideal circuits (noise=None, backend='exact')."
        )
    return ansatz


def native_runs(ansatz: str, depth: int, n_qubits: int) -> tuple[tuple[Run, ...], ...]:
    """Return the runs of each slot and qubit, as the transpiler makes them for angles of no special value.

    One qubit alone keeps its runs apart, one for each rotation, although a transpiler would join them all.

    Raises:
        ValueError: for an ansatz that is unknown, or that no device runs.
    """
    axes = find_native(ansatz).rotations
    return tuple(_runs(axes[slot % len(axes)], n_qubits, slot == 0) for slot in range(depth * len(axes)))


def native_circuit(ansatz: str, depth: int, n_qubits: int, snapshot: Snapshot) -> NativeCircuit:
    """Return an ansatz in the device's gates, with the waiting times that the device's gates lead to.

    Raises:
        ValueError: for an ansatz that is unknown or that no device runs, or a circuit wider than the device.
    """
    runs = native_runs(ansatz, depth, n_qubits)
    return NativeCircuit(runs, _idle_times(runs, snapshot))
