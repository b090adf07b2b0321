"""A circuit as text: a row for each qubit, time from left to right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from qpa_hf.circuit.export import Gate, gates, one_circuit
from qpa_hf.messages import whole_number

if TYPE_CHECKING:
    from jaxtyping import Float

WIRE, CROSSING, CONTROL = "─", "│", "●"
TARGETS = {"cnot": "X", "cz": CONTROL}
TOP, BOTTOM = "╭", "╰"  # the two ends of a gate of two qubits


def draw(
    angles: Float[Tensor, "*layers n_qubits"] | tuple[int, int], ansatz: str = "ry_cnot", width: int = 100
) -> str:
    """Return a drawing of one circuit.

    `●` is the control of a CNOT and either end of a CZ, `X` the target of a CNOT, and `│` a qubit that a gate passes
    over. Gates stand as far to the left as they can.

    Args:
        angles: one circuit's angles in radians, shape (depth, n_qubits), or (depth, n_rotations, n_qubits) for an
            ansatz of several rotations, shown with two decimals; or the two numbers (depth, n_qubits), for angles
            that are named θ0, θ1, ... through (layers, rotations, qubits).
        ansatz: the gate pattern, a key of `ANSATZE`.
        width: characters a line; a longer circuit goes on below.

    Raises:
        TypeError, ValueError: as `probabilities` does, and for the angles of several circuits.

    Example:
        >>> print(draw((1, 3)))
        q0: ─RY(θ0)─╭●────
        q1: ─RY(θ1)─╰X─╭●─
        q2: ─RY(θ2)────╰X─
    """
    if isinstance(angles, Tensor):
        found, values = one_circuit(angles, ansatz)
        n_qubits = angles.shape[-1]
        labels = [f"{value:.2f}" for value in values]
    else:
        depth, n_qubits = (whole_number(*one) for one in zip(("depth", "n_qubits"), angles, strict=True))
        found = list(gates(ansatz, depth, n_qubits))
        labels = [f"θ{number}" for number in range(len(found))]
    names = [f"q{qubit}: " for qubit in range(n_qubits)]
    names = [name.ljust(max(map(len, names))) for name in names]
    room = whole_number("width", width) - len(names[0]) - 1
    blocks: list[list[str]] = []
    for column in _columns(found, labels, n_qubits):
        if not blocks or len(blocks[-1][0]) + len(column[0]) > room:
            blocks.append([WIRE] * n_qubits)
        blocks[-1] = [row + cell for row, cell in zip(blocks[-1], column, strict=True)]
    return "\n\n".join("\n".join(name + row for name, row in zip(names, rows, strict=True)) for rows in blocks)


def _columns(found: list[Gate], labels: list[str], n_qubits: int) -> list[list[str]]:
    """Return the columns of a drawing, a text of the same length for each qubit."""
    columns: list[list[str]] = []
    free_from = [0] * n_qubits  # the first column in which nothing is drawn on a qubit yet
    for gate in found:
        first, last = min(gate.qubits), max(gate.qubits)
        place = max(free_from[first : last + 1])
        if place == len(columns):
            columns.append([""] * n_qubits)
        for qubit in range(first, last + 1):
            columns[place][qubit] = _cell(gate, qubit, labels)
            free_from[qubit] = place + 1
    return [[cell.ljust(max(map(len, column)) + 1, WIRE) for cell in column] for column in columns]


def _cell(gate: Gate, qubit: int, labels: list[str]) -> str:
    """Return what a gate looks like on one of the qubits that it reaches over."""
    if gate.angle is not None:
        return f"{gate.name.upper()}({labels[gate.angle]})"
    if qubit not in gate.qubits:
        return CROSSING
    return (TOP if qubit == min(gate.qubits) else BOTTOM) + (
        CONTROL if qubit == gate.qubits[0] else TARGETS[gate.name]
    )
