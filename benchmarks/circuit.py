"""Time one circuit's forward pass and gradient against other simulators, side by side in one process."""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks import record
from benchmarks.measure import (
    SEED,
    TOLERANCE,
    check_agreement,
    disagreement,
    in_fresh_process,
    medians,
    n_operations,
    paired_ratio,
    peak_bytes,
    take_turns,
)
from benchmarks.record import Target, worst
from benchmarks.simulators import FORWARD, GENERAL, LIGHTNING, OURS, SIMULATORS, TORCHQUANTUM
from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.plots import in_style, whole_numbers

DEPTH = 8
QUBITS = (4, 5, 7, 8, 10, 12, 14, 16)
MEMORY_QUBITS = (12, 16, 20, 24)
MEMORY_ANSATZ = "ry_cnot"
ROW_SECONDS = 40  # all simulators' turns at one size; more qubits than this allows get fewer rounds

Row = dict[str, Any]


def problem(
    ansatz: str, n_qubits: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return angles and the cotangent of the probabilities."""
    rng = torch.Generator().manual_seed(SEED)
    angles = torch.randn(angles_shape(ansatz, DEPTH, n_qubits), generator=rng)
    return angles.to(device, dtype), torch.randn(2**n_qubits, generator=rng).to(device, dtype)


def _reference(name: str) -> str:
    """Return the arm of ours that does the same work."""
    return OURS if SIMULATORS[name].has_gradient else FORWARD


@lru_cache
def missing() -> dict[str, str]:
    """Return which simulators cannot take part, and why: not to be imported, or wrong already on three qubits."""
    reasons = {name: why for name, simulator in SIMULATORS.items() if (why := simulator.missing())}
    inputs = *problem(MEMORY_ANSATZ, 3), MEMORY_ANSATZ
    for name in [name for name in SIMULATORS if name not in reasons]:
        gap = disagreement(*(SIMULATORS[which].make(*inputs)() for which in (name, _reference(name))))
        if not gap <= TOLERANCE:
            reasons[name] = f"its numbers are wrong here (largest difference {gap:.2g})"
    return reasons


def _left_out(n_qubits: int, device: str) -> dict[str, str]:
    """Return which simulators take no part at this size, and why."""
    reasons = {}
    for name, simulator in SIMULATORS.items():
        if n_qubits > simulator.max_qubits:
            reasons[name] = f"more than {simulator.max_qubits} qubits"
        elif device != "cpu" and not simulator.is_torch:
            reasons[name] = "runs on a CPU only"
    return reasons | missing()


def _float32_error(ansatz: str, n_qubits: int) -> dict[str, float]:
    found = []
    for dtype in (torch.float32, torch.float64):
        angles, weights = problem(ansatz, n_qubits, dtype=dtype)
        p = probabilities(angles.requires_grad_(), ansatz)
        found.append((p.detach(), torch.autograd.grad(p, angles, weights)[0]))
    pairs = zip(("probabilities", "gradient"), *found, strict=True)
    return {name: (single.double() - double).abs().max().item() for name, single, double in pairs}


def compare(ansatz: str, n_qubits: int, options: argparse.Namespace) -> Row:
    """Time all simulators at one size, after checking that they agree."""
    left_out = _left_out(n_qubits, options.device)
    angles, weights = problem(ansatz, n_qubits, options.device)
    runs = {name: s.make(angles, weights, ansatz) for name, s in SIMULATORS.items() if name not in left_out}
    gradient, p = runs[OURS](), probabilities(angles, ansatz)
    for name, run in runs.items():
        check_agreement(name, run(), gradient if SIMULATORS[name].has_gradient else p)
    operations = {name: n_operations(runs[name], options.device) for name in runs if SIMULATORS[name].is_torch}
    times = take_turns(runs, options.rounds, options.device, ROW_SECONDS)
    return {
        "ansatz": ansatz,
        "n_qubits": n_qubits,
        "rounds": len(times[OURS]),
        "median_ms": medians(times),
        "over_ours": {name: paired_ratio(times[name], times[_reference(name)]) for name in runs},
        "operations": operations,
        "float32_error": _float32_error(ansatz, n_qubits),
        "left_out": left_out,
    }


def peak(name: str, n_qubits: int, device: str) -> int:
    """Return the bytes that angles, cotangent, circuit and gradient take at their peak; for a fresh process."""
    make = SIMULATORS[name].make
    make(*problem(MEMORY_ANSATZ, 2, device), MEMORY_ANSATZ)()  # libraries and their thread pools
    return peak_bytes(lambda: make(*problem(MEMORY_ANSATZ, n_qubits, device), MEMORY_ANSATZ)(), device)


def memory(n_qubits: int, device: str) -> Row:
    """Measure every simulator's peak memory at one size, each in a process of its own."""
    left_out = _left_out(n_qubits, device)
    found = {name: in_fresh_process(peak, name, n_qubits, device) for name in SIMULATORS if name not in left_out}
    killed = {name: "killed for lack of memory" for name, n_bytes in found.items() if n_bytes is None}
    return {"ansatz": MEMORY_ANSATZ, "n_qubits": n_qubits, "peak_bytes": found, "left_out": left_out | killed}


def _ratios(rows: list[Row], rival: str, ansatze: tuple[str, ...], low: int, high: int) -> dict[str, float]:
    return {
        f"{row['ansatz']}, N = {row['n_qubits']}": row["over_ours"][rival]["ratio"]
        for row in rows
        if row["ansatz"] in ansatze and low <= row["n_qubits"] <= high and rival in row["over_ours"]
    }


def targets(rows: list[Row], memory_rows: list[Row], device: str) -> list[Target]:
    """Judge what was measured."""
    two = tuple(name for name, ansatz in ANSATZE.items() if len(ansatz.rotations) == 2)
    where = {id(row): f"{row['ansatz']}, N = {row['n_qubits']}" for row in rows}
    few = [row for row in rows if row["n_qubits"] <= 12]
    operations = [
        {where[id(r)]: r["operations"][OURS] for r in few if (r["ansatz"] in two) == b} for b in (False, True)
    ]
    errors = {name: {where[id(r)]: r["float32_error"][name] for r in rows} for name in ("probabilities", "gradient")}
    peaks = {row["n_qubits"]: row["peak_bytes"][OURS] for row in memory_rows if row["peak_bytes"][OURS]}
    megabytes = {f"N = {n}": n_bytes / 1e6 for n, n_bytes in peaks.items() if n == 24}
    wanted = 28 if device == "cpu" else 32
    is_tried = any(row["n_qubits"] >= wanted for row in memory_rows)
    largest = {f"{n_bytes / 1e9:.3g} GB": n for n, n_bytes in peaks.items() if n == max(peaks) and is_tried}
    judged = [
        worst("torch operations, N <= 12, one rotation", "<=", 55, operations[0], "operations"),
        worst("torch operations, N <= 12, two rotations", "<=", 55, operations[1], "operations"),
        worst("float32 against float64, probabilities", "<=", 1e-6, errors["probabilities"], ""),
        worst("float32 against float64, gradients", "<=", 1e-6, errors["gradient"], ""),
        worst("peak memory, N = 24, L = 8", "<=", 400, megabytes, "MB"),
        worst("largest gradient taken here", ">=", wanted, largest, "qubits"),
    ]
    if device != "cpu":
        return judged
    one = ("ry_cnot",)
    return [
        worst("R_Y over TorchQuantum, N = 5-12", ">=", 35, _ratios(rows, TORCHQUANTUM, one, 5, 12)),
        worst("R_Y over TorchQuantum, N = 14-16", ">=", 25, _ratios(rows, TORCHQUANTUM, one, 14, 16)),
        worst("two rotations over TorchQuantum, N = 7-12", ">=", 20, _ratios(rows, TORCHQUANTUM, two, 7, 12)),
        worst("R_X over the general path, N = 5-14", ">=", 7, _ratios(rows, GENERAL, ("rx_cnot",), 5, 14)),
        worst("R_Y over lightning's raw device, N = 5-14", ">=", 5, _ratios(rows, LIGHTNING, one, 5, 14)),
        *judged,
    ]


def tables(rows: list[Row], memory_rows: list[Row]) -> list[Table]:
    """Return a table for each ansatz and one of memory, a column for each size."""
    found = []
    for ansatz in ANSATZE:
        chosen = [row for row in rows if row["ansatz"] == ansatz]
        if not chosen:
            continue
        title = f"{ansatz}: ours in ms (median), the others as multiples of it"
        table = Table("qubits", *(str(row["n_qubits"]) for row in chosen), title=title)
        for name in SIMULATORS:
            table.add_row(name, *(_cell(row, name) for row in chosen))
        table.add_row("rounds", *(str(row["rounds"]) for row in chosen))
        table.add_row("ours: operations", *(str(row["operations"][OURS]) for row in chosen))
        found.append(table)
    title = f"{MEMORY_ANSATZ}: peak memory in MB, inputs included"
    table = Table("qubits", *(str(row["n_qubits"]) for row in memory_rows), title=title)
    for name in SIMULATORS:
        sizes = [row["peak_bytes"].get(name) for row in memory_rows]
        table.add_row(name, *("-" if size is None else f"{size / 1e6:.1f}" for size in sizes))
    return [*found, table]


def _cell(row: Row, name: str) -> str:
    if name not in row["median_ms"]:
        return "-"
    if name == _reference(name):
        return f"{row['median_ms'][name]:.3g}"
    return f"{row['over_ours'][name]['ratio']:.3g}x"


@in_style()
def plot(rows: list[Row], memory_rows: list[Row], path: Path) -> None:
    """Write times by ansatz, operations and peak memory against the number of qubits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 9), layout="constrained")
    axes = figure.subplots(2, 3).flatten()
    r_y = [row for row in rows if row["ansatz"] == MEMORY_ANSATZ]
    panels = [(f"{ansatz}: time", "ms", [r for r in rows if r["ansatz"] == ansatz], "median_ms") for ansatz in ANSATZE]
    panels += [
        (f"{MEMORY_ANSATZ}: torch operations", "operations", r_y, "operations"),
        (f"{MEMORY_ANSATZ}: peak memory", "bytes", memory_rows, "peak_bytes"),
    ]
    for panel, (title, unit, chosen, key) in zip(axes, panels, strict=True):
        for i, name in enumerate(SIMULATORS):
            points = [(row["n_qubits"], row[key][name]) for row in chosen if row[key].get(name)]
            if points:
                style = "-" if SIMULATORS[name].has_gradient else ":"
                panel.plot(*zip(*points, strict=True), style, color=f"C{i}", marker="osv^<>DPX*h"[i], label=name)
        panel.set(title=title, xlabel="qubits", ylabel=unit, yscale="log")
        whole_numbers(panel.xaxis)
    found = {name: line for panel in axes for line, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=5)
    figure.suptitle(f"One circuit of depth {DEPTH}: forward and gradient (dotted: forward only), one thread")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = record.arguments(__doc__, "circuit", "6", 20)
    parser.add_argument("--qubits", type=int, nargs="*", default=QUBITS, help="sizes to time")
    parser.add_argument(
        "--memory-qubits",
        type=int,
        nargs="*",
        default=MEMORY_QUBITS,
        help="sizes whose peak memory is measured; 28 takes some minutes more",
    )
    options = parser.parse_args()
    if options.quick:
        options.qubits, options.memory_qubits, options.rounds = (3,), (6,), 2
    record.prepare(options)
    memory_rows = [memory(n_qubits, options.device) for n_qubits in options.memory_qubits]
    rows = [compare(ansatz, n_qubits, options) for ansatz in ANSATZE for n_qubits in options.qubits]
    judged = targets(rows, memory_rows, options.device)
    config = {"depth": DEPTH, "qubits": list(options.qubits), "dtype": "float32"}
    config |= {"memory_qubits": list(options.memory_qubits)}
    record.write(options, config, missing(), {"rows": rows, "memory": memory_rows}, judged)
    plot(rows, memory_rows, options.output.with_suffix(".png"))
    record.show(tables(rows, memory_rows), judged, missing(), options.output)


if __name__ == "__main__":
    main()
