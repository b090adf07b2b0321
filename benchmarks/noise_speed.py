"""Time our noise model against Qiskit Aer's on the same device and circuits, and measure how far they are apart."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks import record
from benchmarks.measure import SEED, Run, medians, paired_ratio, take_turns
from benchmarks.record import Target, worst
from qpa_hf.circuit import ANSATZE, angles_shape
from qpa_hf.measurement.device.aer import (
    aer_probabilities,
    aer_simulator,
    fake_backend,
    import_aer,
    qiskit_circuit,
    transpile_circuits,
)
from qpa_hf.measurement.noise import DEVICES, find_snapshot, noisy_probabilities
from qpa_hf.plots import in_style, whole_numbers

DEPTH, TARGET_QUBITS = 8, 7
FASTER, TOTAL_VARIATION = 100, 0.03  # to reach
QUBITS, QUICK_QUBITS = (3, 5, 7), (3,)
CASE_SECONDS = 120
OURS, GRADIENT = "ours", "ours, with gradient"
SNAPSHOT, LINE, ANEW = "Aer, whole device", "Aer, our qubits alone", "Aer, our qubits alone, transpiled anew"
AER = (SNAPSHOT, LINE, ANEW)
Row = dict[str, Any]


def draw(ansatz: str, n_qubits: int) -> Tensor:
    """Return one circuit's angles."""
    rng = torch.Generator().manual_seed(SEED)
    return torch.rand(angles_shape(ansatz, DEPTH, n_qubits), generator=rng) * 2 * torch.pi


def aer(simulator: Any, angles: Tensor, ansatz: str, device: str) -> Run:
    """Return Aer's run of a circuit that is already transpiled: readout error is not even applied."""
    line = find_snapshot(device).line(angles.shape[-1])
    (circuit,) = transpile_circuits([qiskit_circuit(angles, ansatz)], fake_backend(device), line)
    circuit = circuit.remove_final_measurements(inplace=False)
    circuit.save_probabilities(list(reversed(line)))
    return lambda: simulator.run(circuit).result()


def whole_device(device: str) -> Any:
    """Return Aer's simulator with the noise model of all of a device's qubits, as Aer makes it of the snapshot."""
    backend = fake_backend(device)
    return import_aer().AerSimulator.from_backend(backend, method="density_matrix", max_parallel_threads=1)


def times(ansatz: str, device: str, n_qubits: int, options: argparse.Namespace) -> Row:
    """Time one circuit."""
    angles = draw(ansatz, n_qubits)
    leaf, weights = angles.clone().requires_grad_(), torch.randn(2**n_qubits)
    line = aer(aer_simulator(device, n_qubits), angles, ansatz, device)
    runs = {
        OURS: lambda: noisy_probabilities(angles, ansatz, device),
        GRADIENT: lambda: torch.autograd.grad(noisy_probabilities(leaf, ansatz, device), leaf, weights),
        SNAPSHOT: aer(whole_device(device), angles, ansatz, device),
        LINE: line,
        ANEW: lambda: aer_probabilities(angles, ansatz, device),
    }
    found = take_turns(runs, options.rounds, options.device, CASE_SECONDS)
    return {
        "ansatz": ansatz,
        "device": device,
        "n_qubits": n_qubits,
        "rounds": len(found[OURS]),
        "median_ms": medians(found),
        # What Aer itself says its compiled simulation took, without reading the circuit and the errors.
        "aer_simulation_ms": min(line().results[0].time_taken for _ in range(3)) * 1e3,
        "over_ours": {name: paired_ratio(found[name], found[OURS]) for name in runs},
    }


def distances(ansatz: str, device: str, n_qubits: int) -> Row:
    """Measure the total variation between our probabilities and Aer's."""
    angles = draw(ansatz, n_qubits)
    gap = noisy_probabilities(angles, ansatz, device) - aer_probabilities(angles, ansatz, device)
    exact = noisy_probabilities(angles, ansatz, find_snapshot(device).scaled(0))
    noise = noisy_probabilities(angles, ansatz, device) - exact
    return {
        "ansatz": ansatz,
        "device": device,
        "n_qubits": n_qubits,
        "from_aer": gap.abs().sum().item() / 2,
        "from_exact": noise.abs().sum().item() / 2,
    }


def targets(time_rows: list[Row], distance_rows: list[Row]) -> list[Target]:
    """Judge what was measured."""
    chosen = [row for row in time_rows if row["n_qubits"] == TARGET_QUBITS]
    where = {name: {f"{r['ansatz']}, {r['device']}": r["over_ours"][name]["ratio"] for r in chosen} for name in AER}
    far = {f"{r['ansatz']}, {r['device']}, N = {r['n_qubits']}": r["from_aer"] for r in distance_rows}
    return [
        *(worst(f"{name} / ours, N = 7, L = 8", ">=", FASTER, where[name]) for name in AER),
        worst("total variation from Aer with the snapshot", "<=", TOTAL_VARIATION, far, unit=""),
    ]


def tables(time_rows: list[Row], distance_rows: list[Row]) -> list[Table]:
    """Return times and distances."""
    first = Table("circuit", "N", "ours, ms", "gradient, ms", *AER, "Aer's simulation", title="Over ours, L = 8")
    for row in time_rows:
        ours = row["median_ms"][OURS]
        cells = [f"{o['ratio']:.4g} ({o['low']:.4g} - {o['high']:.4g})" for o in map(row["over_ours"].get, AER)]
        mine = (f"{ours:.3g}", f"{row['median_ms'][GRADIENT]:.3g}")
        name = f"{row['ansatz']}, {row['device']}"
        first.add_row(name, str(row["n_qubits"]), *mine, *cells, f"{row['aer_simulation_ms'] / ours:.3g}")
    second = Table("circuit", "N", "from Aer", "from exact", title="Total variation, L = 8")
    for row in distance_rows:
        numbers = (f"{row['from_aer']:.2g}", f"{row['from_exact']:.3g}")
        second.add_row(f"{row['ansatz']}, {row['device']}", str(row["n_qubits"]), *numbers)
    return [first, second]


@in_style()
def plot(rows: list[Row], path: Path) -> None:
    """Write the time of each arm against the number of qubits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for name in (OURS, GRADIENT, *AER):
        panel.plot([r["n_qubits"] for r in rows], [r["median_ms"][name] for r in rows], label=name)
    panel.set(xlabel="qubits", ylabel="milliseconds", yscale="log", title="A noisy circuit on ibm_torino, L = 8")
    whole_numbers(panel.xaxis)
    panel.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the comparison and write it."""
    parser = record.arguments(__doc__ or "", "noise_speed", "10", rounds=9)
    options = parser.parse_args()
    record.prepare(options)
    widths = QUICK_QUBITS if options.quick else QUBITS
    time_rows = [times("ry_cnot", "torino", n_qubits, options) for n_qubits in widths]
    pairs = [("ry_cnot", "torino")] if options.quick else [(a, d) for a in ANSATZE for d in DEVICES]
    sizes = QUICK_QUBITS if options.quick else (4, TARGET_QUBITS)
    distance_rows = [distances(*pair, n_qubits) for pair in pairs for n_qubits in sizes]
    config = {"depth": DEPTH, "n_qubits": widths, "dtype": "float32"}
    reached = targets(time_rows, distance_rows)
    record.write(options, config, {}, {"times": time_rows, "distances": distance_rows}, reached)
    plot(time_rows, options.output.with_suffix(".png"))
    record.show(tables(time_rows, distance_rows), reached, {}, options.output)


if __name__ == "__main__":
    main()
