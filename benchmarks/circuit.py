"""Time one circuit's forward and gradient against other simulators, side by side: `python -m benchmarks.circuit`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.circuit.grouped import GroupedCircuit

DEPTH = 8
Run = Callable[[], object]


def ours(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    leaf = angles.clone().requires_grad_()
    return lambda: torch.autograd.grad(probabilities(leaf, ansatz), leaf, weights)


def general(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    """Run the path that takes any ansatz, without the forms made for one."""
    batch = angles.reshape(1, DEPTH, -1, angles.shape[-1])

    def run() -> Tensor:
        circuit = GroupedCircuit(batch, ANSATZE[ansatz])
        return circuit.backward(circuit.forward()[1], weights[None])

    return run


def torchquantum(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
    import torchquantum as tq
    import torchquantum.functional as tqf

    leaf, n_qubits, axes = angles.clone().requires_grad_(), angles.shape[-1], ANSATZE[ansatz].rotations
    gates = {"x": tqf.rx, "y": tqf.ry, "z": tqf.rz}

    def run() -> object:
        device = tq.QuantumDevice(n_wires=n_qubits)
        for layer in leaf.reshape(DEPTH, len(axes), n_qubits):
            for axis, row in zip(axes, layer, strict=True):
                for qubit in range(n_qubits):
                    gates[axis](device, wires=qubit, params=row[qubit])
                for qubit in range(n_qubits - 1):
                    tqf.cnot(device, wires=[qubit, qubit + 1])
        return torch.autograd.grad(device.get_states_1d()[0].abs().square(), leaf, weights)

    return run


def pennylane(name: str, method: str) -> Callable[[Tensor, Tensor, str], Run]:
    def make(angles: Tensor, weights: Tensor, ansatz: str) -> Run:
        import pennylane as qml

        leaf, n_qubits, axes = angles.clone().requires_grad_(), angles.shape[-1], ANSATZE[ansatz].rotations
        gates = {"x": qml.RX, "y": qml.RY, "z": qml.RZ}
        observable = qml.Hermitian(torch.diag(weights.double()).numpy(), wires=range(n_qubits))

        @qml.qnode(qml.device(name, wires=n_qubits), interface="torch", diff_method=method)
        def circuit(x: Tensor) -> object:
            for layer in x.reshape(DEPTH, len(axes), n_qubits):
                for axis, row in zip(axes, layer, strict=True):
                    for qubit in range(n_qubits):
                        gates[axis](row[qubit], wires=qubit)
                    for qubit in range(n_qubits - 1):
                        qml.CNOT([qubit, qubit + 1])
            return qml.expval(observable) if method == "adjoint" else qml.probs(range(n_qubits))

        if method == "adjoint":
            return lambda: torch.autograd.grad(circuit(leaf), leaf)
        return lambda: torch.autograd.grad(circuit(leaf), leaf, weights.double())

    return make


RIVALS = {
    "general path": ("torch", general),
    "TorchQuantum": ("torchquantum", torchquantum),
    "PennyLane default.qubit": ("pennylane", pennylane("default.qubit", "backprop")),
    "PennyLane lightning adjoint": ("pennylane_lightning", pennylane("lightning.qubit", "adjoint")),
}
LIGHTNING_MAX_QUBITS = 8  # through a QNode, the weighted sum of probabilities is a dense matrix


def median_ms(runs: dict[str, Run], n_rounds: int) -> dict[str, float]:
    """Take turns, so that a change of the machine's load meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(n_rounds + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if index >= 2:  # the first two rounds make tables and warm caches
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: round(statistics.median(taken), 4) for name, taken in times.items()}


def measure(qubits: list[int], n_rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for ansatz in ANSATZE:
        for n_qubits in qubits:
            generator = torch.Generator().manual_seed(0)
            angles = torch.randn(angles_shape(ansatz, DEPTH, n_qubits), generator=generator)
            weights = torch.randn(2**n_qubits, generator=generator)
            runs = {"ours": ours(angles, weights, ansatz)}
            for name, (module, make) in RIVALS.items():
                is_too_large = "lightning" in name and n_qubits > LIGHTNING_MAX_QUBITS
                if importlib.util.find_spec(module) and not is_too_large:
                    runs[name] = make(angles, weights, ansatz)
            rows.append({"ansatz": ansatz, "n_qubits": n_qubits, "median_ms": median_ms(runs, n_rounds)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qubits", type=int, nargs="+", default=[5, 7, 10, 12, 14])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/circuit.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    missing = [name for name, (module, _) in RIVALS.items() if not importlib.util.find_spec(module)]
    print("not installed:", ", ".join(missing) or "none")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    installed = {module for module, _ in RIVALS.values() if importlib.util.find_spec(module)}
    result = {
        "config": {"depth": DEPTH, "rounds": options.rounds, "threads": 1, "dtype": "float32", "seed": 0},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in sorted(installed)}},
        "commit": commit,
        "missing": missing,
        "rows": measure(options.qubits, options.rounds),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
