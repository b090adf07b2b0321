"""`qpa circuit`."""

from __future__ import annotations

from typing import Annotated

import typer

from qpa_hf_cli.options import AsJson


def circuit(
    ansatz: Annotated[str, typer.Option(help="Gate pattern, by its name.")] = "ry_cnot",
    qubits: Annotated[int, typer.Option(min=1, help="Number of qubits.")] = 4,
    layers: Annotated[int, typer.Option(min=1, help="Number of layers.")] = 1,
    draw: Annotated[bool, typer.Option("--draw", help="Draw it as text.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a circuit consists of, and draw it. `qpa_hf.circuit` takes it to Qiskit, PennyLane and OpenQASM."""
    from collections import Counter

    from qpa_hf.checkpoint import to_json
    from qpa_hf.circuit import angles_shape, find_ansatz, gates
    from qpa_hf.circuit import draw as drawn
    from qpa_hf.terminal import console, say

    counts = Counter(gate.name for gate in gates(ansatz, layers, qubits))
    facts = {"ansatz": ansatz, "pattern": str(find_ansatz(ansatz)), "n_qubits": qubits, "depth": layers}
    facts |= {"angles_shape": angles_shape(ansatz, layers, qubits), "gates": dict(counts)}
    # The gates would be cut where a terminal breaks lines.
    picture = drawn((layers, qubits), ansatz, max(console().width, 40)) if draw else None
    if as_json:
        say(to_json(facts | ({"drawing": picture} if picture else {})))
        return
    n_gates = ", ".join(f"{number} {name.upper()}" for name, number in counts.items())
    say(f"{ansatz} ({facts['pattern']}), {qubits} qubit(s), {layers} layer(s): {n_gates}")
    if picture:
        say(f"\n{picture}")


COMMANDS = (circuit,)
