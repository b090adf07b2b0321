"""Pictures of the study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.report import bars, save
from benchmarks.noise.gradients import GENERATORS, QUANTITIES
from benchmarks.noise.parts import DEVICE_ANSATZE, DEVICE_SHOTS, PAPER_SHOTS, Grid
from benchmarks.noise.results import WRITING, Results
from benchmarks.noise.setting import Setting
from qpa_hf.measurement.interpolation import INTERPOLATIONS
from qpa_hf.measurement.noise import DEVICES
from qpa_hf.plots import in_style, whole_numbers

Curve = list[tuple[float, Setting]]


@in_style()
def of_task(results: Results, grid: Grid, folder: Path) -> list[Path]:
    """Write a picture with a panel for each part that has results; return what was written."""
    from matplotlib.figure import Figure

    panels = {
        title: (label, curves, reference)
        for title, (label, curves, reference) in _panels(grid).items()
        if any(results.find(setting) for curve in curves.values() for _, setting in curve)
    }
    if not panels:
        return []
    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    for axes, (title, (label, curves, reference)) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for name, curve in curves.items():
            _draw(axes, results, name, curve)
        exact = results.find(reference) if reference else None
        if exact is not None:
            axes.axhline(exact.mean, color="black", linestyle=":", marker="", label="exact")
        axes.set(title=f"{results.task}: {title}", xlabel=label, ylabel="test cross-entropy (nats)")
        if reference is not None:
            axes.set_xscale("log")
        else:
            whole_numbers(axes.xaxis)
        axes.legend()
    path = folder / f"noise_{results.task}.png"
    return [save(figure, path, dpi=120)]


def _panels(grid: Grid) -> dict[str, tuple[str, dict[str, Curve], Setting | None]]:
    """Return each panel's x label, its curves, and what is drawn as a line across it."""
    by_shots: dict[str, Curve] = {"exact": [(n, Setting(n)) for n in grid.widths]}
    by_shots |= {s: [(n, Setting(n, s, "parameter_shift")) for n in grid.widths] for s in PAPER_SHOTS}
    by_noise: dict[str, Curve] = {
        f"{ansatz}, {noise or 'noiseless'}": [
            (n, Setting(n, DEVICE_SHOTS, ansatz=ansatz, noise=noise)) for n in grid.noisy_widths
        ]
        for ansatz in DEVICE_ANSATZE
        for noise in (None, *DEVICES)
    }
    width = grid.interpolated_width
    by_few: dict[str, Curve] = {
        name: [(float(s[:-1]), Setting(width, s, interpolation=name)) for s in grid.few_shots]
        for name in INTERPOLATIONS
    }
    return {
        "shots (Fig. 8)": ("qubits", by_shots, None),
        "noise (Fig. 9)": ("qubits", by_noise, None),
        f"interpolation, N = {width}": ("shots for each basis state", by_few, Setting(width)),
    }


def _draw(axes: Any, results: Results, name: str, curve: Curve) -> None:
    points = [(x, found) for x, setting in curve if (found := results.find(setting)) is not None]
    if not points:
        return
    found = [result for _, result in points]
    reach = bars(found, WRITING)
    axes.errorbar([x for x, _ in points], [one.mean for one in found], yerr=reach, capsize=3, label=name)


@in_style()
def of_gradients(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Write the variance against qubits (one colour for each depth) of every quantity, R_Y + CNOT."""
    from matplotlib.figure import Figure

    names = (*QUANTITIES, *GENERATORS)
    figure = Figure(figsize=(19, 8), layout="constrained")
    panels = list(figure.subplots(2, 4).flat)
    panels.pop().set_axis_off()
    for axes, name in zip(panels, names, strict=True):
        own = [row for row in rows if row["quantity"] == name and row["ansatz"] == "ry_cnot"]
        for depth in sorted({row["depth"] for row in own}):
            points = [row for row in own if row["depth"] == depth]
            bars = [[max(0.0, row["variance"] - row["low"]) for row in points]]
            bars.append([max(0.0, row["high"] - row["variance"]) for row in points])
            axes.errorbar(
                [row["n_qubits"] for row in points],
                [row["variance"] for row in points],
                yerr=bars,
                label=f"L = {depth}",
            )
        if name in QUANTITIES:
            widths = sorted({(row["n_qubits"], row["plateau"]) for row in own})
            axes.plot(*zip(*widths, strict=True), color="black", linestyle=":", marker="", label="deep circuits")
        axes.set(title=name, xlabel="qubits", ylabel="variance of the gradient", yscale="log")
        whole_numbers(axes.xaxis)
        axes.legend()
    path = folder / "noise_gradients.png"
    return save(figure, path, dpi=110)
