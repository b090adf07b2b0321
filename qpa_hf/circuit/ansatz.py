"""The known ansätze: which rotations a layer has, in time order; each rotation layer is followed by the CNOT chain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ansatz:
    """A layer's rotations in time order; after each of them comes CNOT(q, q+1) for q = 0 .. n_qubits-2, an open chain.

    Args:
        rotations: axes of the rotation layers, "x", "y" or "z".
    """

    rotations: tuple[str, ...]

    @property
    def is_real(self) -> bool:
        """Whether all amplitudes stay real: R_Y and CNOT are real matrices."""
        return all(axis == "y" for axis in self.rotations)


# Eq. 1, 12, 13 and 14 of https://huggingface.co/papers/2410.09846.
ANSATZE = {
    "ry_cnot": Ansatz(("y",)),
    "rx_cnot": Ansatz(("x",)),
    "rx_rz_cnot": Ansatz(("x", "z")),
    "ry_rz_cnot": Ansatz(("y", "z")),
}


def find_ansatz(name: str) -> Ansatz:
    """Return the ansatz called `name`.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in ANSATZE:
        raise ValueError(f"`ansatz`={name!r} is not known. Choose one of {', '.join(map(repr, ANSATZE))}.")
    return ANSATZE[name]


def angles_shape(ansatz: str, depth: int, n_qubits: int) -> tuple[int, ...]:
    """Return the shape of one circuit's angles: (depth, n_qubits), or (depth, 2, n_qubits) with two rotations a layer.

    Example:
        >>> angles_shape("ry_cnot", 8, 7), angles_shape("rx_rz_cnot", 8, 7)
        ((8, 7), (8, 2, 7))
    """
    n_rotations = len(find_ansatz(ansatz).rotations)
    return (depth, n_qubits) if n_rotations == 1 else (depth, n_rotations, n_qubits)
