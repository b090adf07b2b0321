"""Read the snapshots of IBM's devices that come with qiskit-ibm-runtime and write what the noise model needs of them.

    python -m qpa_hf.measurement.device.calibration

No network is used. The lines of qubits are those that Qiskit's transpiler chooses for an open chain of CNOTs.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from qpa_hf.measurement.device.aer import fake_backend
from qpa_hf.measurement.noise.snapshot import DEVICES, FOLDER

MAX_LINE = 20  # qubits; trajectories of more take hours
LAYOUT_LEVEL, LAYOUT_SEED = 3, 0  # Qiskit's highest optimization level weighs the qubits' errors


def choose_line(backend: Any, n_qubits: int) -> list[int]:
    """Return the physical qubits that Qiskit's transpiler lays a chain of CNOTs on, in the chain's order."""
    from qiskit import QuantumCircuit, transpile

    # The angles are arbitrary, but no two are alike: special ones would let the transpiler drop gates.
    chain = QuantumCircuit(n_qubits)
    for layer in range(2):
        for qubit in range(n_qubits):
            chain.ry(0.1 + layer + qubit, qubit)
        for qubit in range(n_qubits - 1):
            chain.cx(qubit, qubit + 1)
    chain.measure_all()
    placed = transpile(chain, backend, optimization_level=LAYOUT_LEVEL, seed_transpiler=LAYOUT_SEED)
    line = placed.layout.final_index_layout()
    coupled = {frozenset(pair) for pair in backend.coupling_map.get_edges()}
    is_line = all(frozenset(pair) in coupled for pair in zip(line[:-1], line[1:], strict=True))
    if not is_line or placed.layout.initial_index_layout(filter_ancillas=True) != line:
        raise RuntimeError(
            f"Qiskit found no line of {n_qubits} coupled qubits on {backend.name}, but {line}. Use fewer qubits."
        )
    return line


def _qubit(backend: Any, physical: int) -> dict[str, float]:
    properties = backend.qubit_properties(physical)
    sx = backend.target["sx"][(physical,)]
    readout = backend.properties().qubit_property(physical)
    return {
        "t1": properties.t1,
        "t2": min(properties.t2, 2 * properties.t1),  # what is measured above that is not physical
        "sx_error": sx.error,
        "sx_duration": sx.duration,
        "false_one": readout["prob_meas1_prep0"][0],
        "false_zero": readout["prob_meas0_prep1"][0],
    }


def read_device(name: str) -> dict[str, Any]:
    """Return the content of a snapshot's file."""
    backend = fake_backend(name)
    lines = [choose_line(backend, n_qubits) for n_qubits in range(1, MAX_LINE + 1)]
    used = sorted({physical for line in lines for physical in line})
    pairs = sorted({(min(p), max(p)) for line in lines for p in zip(line[:-1], line[1:], strict=True)})
    cz = backend.target["cz"]
    return {
        "name": name,
        "calibrated": str(backend.properties().last_update_date),
        "source": f"{type(backend).__name__} of qiskit-ibm-runtime {version('qiskit-ibm-runtime')}; lines from "
        f"Qiskit {version('qiskit')}, optimization level {LAYOUT_LEVEL}, seed {LAYOUT_SEED}",
        "n_device_qubits": backend.num_qubits,
        "lines": lines,
        "qubits": {str(physical): _qubit(backend, physical) for physical in used},
        "couplings": {f"{a}-{b}": {"cz_error": cz[a, b].error, "cz_duration": cz[a, b].duration} for a, b in pairs},
    }


def format_device(data: dict[str, Any]) -> str:
    """Return the JSON of a snapshot with one line of text for each qubit, coupling and line of qubits."""
    parts = []
    for key, value in data.items():
        if isinstance(value, dict):
            rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in value.items())
            parts.append(f" {json.dumps(key)}: {{\n{rows}\n }}")
        elif isinstance(value, list):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            parts.append(f" {json.dumps(key)}: [\n{rows}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Write all snapshots."""
    FOLDER.mkdir(exist_ok=True)
    for name in DEVICES:
        path = FOLDER / f"{name}.json"
        path.write_text(format_device(read_device(name)), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
