"""Calibration snapshots: what the noise model needs to know of a device, read from a JSON file that comes with qpa_hf.

`python -m qpa_hf.measurement.device.calibration` made the files; Qiskit is needed there and nowhere else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "snapshots"
DEVICES = ("torino", "fez")


@dataclass(frozen=True)
class Qubit:
    """One physical qubit. Times are in seconds, errors are probabilities.

    Args:
        t1: the relaxation time of the excited state.
        t2: the dephasing time, never more than 2 * t1.
        sx_error: the average gate infidelity of sqrt(X), relaxation included.
        sx_duration: the duration of sqrt(X).
        false_one: the probability of reading 1 where 0 was prepared.
        false_zero: the probability of reading 0 where 1 was prepared.
    """

    t1: float
    t2: float
    sx_error: float
    sx_duration: float
    false_one: float
    false_zero: float


@dataclass(frozen=True)
class Coupling:
    """The CZ gate between two neighbours: its average gate infidelity and its duration in seconds."""

    cz_error: float
    cz_duration: float


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The calibration of a device at one time, for the lines of qubits that circuits are laid out on.

    Args:
        name: the name of the device.
        calibrated: the date and time of the calibration.
        source: where the calibration data was read from, and how the lines were chosen.
        n_device_qubits: the number of qubits of the whole device.
        lines: the physical qubits of a circuit's qubits 0, 1, ..., by the number of qubits of the circuit.
        qubits: the calibration of each qubit, by physical qubit.
        couplings: the calibration of each coupling, by pairs of physical qubits, the smaller one first.
    """

    name: str
    calibrated: str
    source: str
    n_device_qubits: int
    lines: dict[int, tuple[int, ...]]
    qubits: dict[int, Qubit]
    couplings: dict[tuple[int, int], Coupling]

    def line(self, n_qubits: int) -> tuple[int, ...]:
        """Return the physical qubits that a circuit's qubits lie on.

        Raises:
            ValueError: if the circuit is wider than the device, or than the widest line of the snapshot.
        """
        if n_qubits not in self.lines:
            widest = max(self.lines)
            reason = (
                f"the device has {self.n_device_qubits}"
                if n_qubits > self.n_device_qubits
                else f"its snapshot has lines of up to {widest}"
            )
            raise ValueError(
                f"A circuit of {n_qubits} qubits does not fit on {self.name}: {reason}. "
                f"Use at most {widest} qubits: a larger `chunk_size` needs fewer."
            )
        return self.lines[n_qubits]

    def line_qubits(self, n_qubits: int) -> tuple[Qubit, ...]:
        """Return the calibration of the qubits that a circuit's qubits lie on."""
        return tuple(self.qubits[physical] for physical in self.line(n_qubits))

    def line_couplings(self, n_qubits: int) -> tuple[Coupling, ...]:
        """Return the calibration of the couplings between a circuit's qubits q and q + 1."""
        line = self.line(n_qubits)
        pairs = zip(line[:-1], line[1:], strict=True)
        return tuple(self.couplings[min(a, b), max(a, b)] for a, b in pairs)

    def scaled(self, factor: float) -> Snapshot:
        """Return the same device with all errors, rates of relaxation and readout errors multiplied by `factor`.

        Args:
            factor: the factor, of which 0 gives a device without noise; its gates take as long as before.

        Raises:
            ValueError: if `factor` is negative, or makes a readout error larger than 1.
        """
        largest = max(max(qubit.false_one, qubit.false_zero) for qubit in self.qubits.values())
        if not 0 <= factor <= 1 / largest:
            raise ValueError(
                f"`factor`={factor} is not allowed for `device`={self.name!r}. Use one from 0 to {1 / largest:.3g}, "
                "where a readout error becomes 1."
            )
        # Rates are the inverse of times: half the noise is twice as long a time, and no noise an infinite one.
        rate = 1 / factor if factor else float("inf")
        qubits = {
            physical: Qubit(
                t1=qubit.t1 * rate,
                t2=qubit.t2 * rate,
                sx_error=qubit.sx_error * factor,
                sx_duration=qubit.sx_duration,
                false_one=qubit.false_one * factor,
                false_zero=qubit.false_zero * factor,
            )
            for physical, qubit in self.qubits.items()
        }
        couplings = {pair: replace(c, cz_error=c.cz_error * factor) for pair, c in self.couplings.items()}
        return replace(self, name=f"{self.name} x {factor:g}", qubits=qubits, couplings=couplings)


@lru_cache(maxsize=len(DEVICES))
def _read(name: str) -> Snapshot:
    data = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Snapshot(
        name=data["name"],
        calibrated=data["calibrated"],
        source=data["source"],
        n_device_qubits=data["n_device_qubits"],
        lines={len(line): tuple(line) for line in data["lines"]},
        qubits={int(physical): Qubit(**numbers) for physical, numbers in data["qubits"].items()},
        couplings={
            tuple(int(end) for end in pair.split("-")): Coupling(**numbers)  # type: ignore[misc]
            for pair, numbers in data["couplings"].items()
        },
    )


def find_snapshot(device: str | Snapshot) -> Snapshot:
    """Return the snapshot called `device`, or `device` itself if it is one.

    Raises:
        ValueError: if there is none of that name.

    Example:
        >>> find_snapshot("torino").n_device_qubits
        133
    """
    if isinstance(device, Snapshot):
        return device
    if device not in DEVICES:
        known = ", ".join(map(repr, DEVICES))
        raise ValueError(f"`device`={device!r} has no snapshot. Choose one of {known}, or pass a `Snapshot`.")
    return _read(device)
