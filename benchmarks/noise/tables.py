"""Tables of the trainings, and how they stand to what the paper says."""

from __future__ import annotations

from benchmarks.noise.parts import DEVICE_ANSATZE, DEVICE_SHOTS, PAPER_SHOTS, Grid
from benchmarks.noise.results import Results, count, difference_cell, mean_cell, table
from benchmarks.noise.setting import Setting
from qpa_hf.circuit.noise import DEVICES
from qpa_hf.generator import INTERPOLATIONS


def shots(results: Results, grid: Grid) -> list[str]:
    """Fig. 8: finite shots against exact probabilities, for each number of qubits."""
    rows, by_level = [], {level: [] for level in PAPER_SHOTS}  # type: dict[str, list[Difference | None]]
    for n_qubits in grid.widths:
        exact = Setting(n_qubits)
        found = results.find(exact)
        if found is None:
            continue
        cells = []
        for level in PAPER_SHOTS:
            by_level[level].append(results.difference(Setting(n_qubits, level, "parameter_shift"), exact))
            cells.append(difference_cell(by_level[level][-1]))
        rows.append([str(n_qubits), f"{found.n_trainable:,}", mean_cell(found), *cells])
    if not rows:
        return []
    head = ["N", "trained", "exact", *(f"{level} minus exact" for level in PAPER_SHOTS)]
    said = "; ".join(f"{level} is {count(found)}" for level, found in by_level.items())
    return [
        f"### {results.task}: shots (Fig. 8)",
        "",
        "Gradients of the angles by parameter shift, from as many shots again for each shifted circuit.",
        "",
        *table(head, rows),
        "The paper: more shots give better results, and 40 for each state come close to exact ones. Here, against "
        f"exact: {said} widths.",
        "",
    ]


def devices(results: Results, grid: Grid) -> list[str]:
    """Fig. 9: two devices' noise against none, for two ansätze."""
    rows, noisy, axes = [], {device: [] for device in DEVICES}, []  # type: ignore[var-annotated]
    for n_qubits in grid.noisy_widths:
        ideal = {ansatz: Setting(n_qubits, DEVICE_SHOTS, ansatz=ansatz) for ansatz in DEVICE_ANSATZE}
        axes.append(results.difference(ideal["rx_cnot"], ideal["ry_cnot"]))
        for ansatz, setting in ideal.items():
            found = results.find(setting)
            if found is None:
                continue
            cells = []
            for device in DEVICES:
                noise = Setting(n_qubits, DEVICE_SHOTS, ansatz=ansatz, noise=device)
                noisy[device].append(results.difference(noise, setting))
                cells.append(difference_cell(noisy[device][-1]))
            rows.append([str(n_qubits), ansatz, f"{found.n_trainable:,}", mean_cell(found), *cells])
    if not rows:
        return []
    said = "; ".join(f"{device} is {count(found)}" for device, found in noisy.items())
    return [
        f"### {results.task}: noise (Fig. 9)",
        "",
        f"{DEVICE_SHOTS} shots everywhere; gradients of the angles through the simulated noise.",
        "",
        *table(["N", "ansatz", "trained", "noiseless", *(f"{d} minus noiseless" for d in DEVICES)], rows),
        f"The paper: noise improves most cases. Here: {said} cases.",
        "",
        f"The paper: without noise R_Y + CNOT is better than R_X + CNOT. Here R_X is {count(axes)} widths.",
        "",
    ]


def interpolation(results: Results, grid: Grid) -> list[str]:
    """What stands in for missed states, from few shots to many."""
    width = grid.interpolated_width
    exact = results.find(Setting(width))
    rows, networks = [], []
    others = [name for name in INTERPOLATIONS if name != "none"]
    for level in grid.few_shots:
        nothing = Setting(width, level)
        if results.find(nothing) is None:
            continue
        gaps = {i: results.difference(Setting(width, level, interpolation=i), nothing) for i in others}
        networks += [gaps["network"], gaps["blend"]]
        cells = [difference_cell(gap) for gap in gaps.values()]
        rows.append([level, mean_cell(results.find(nothing)), *cells])
    if not rows:
        return []
    sizes = {i: results.find(Setting(width, grid.few_shots[0], interpolation=i)) for i in INTERPOLATIONS}
    head = [f"{i} minus none ({found.n_trainable:,})" for i, found in sizes.items() if found and i != "none"]
    return [
        f"### {results.task}: interpolation",
        "",
        f"N = {width}, gradients by the simulator's backward pass, trained numbers in brackets; exact probabilities "
        f"({exact.n_trainable if exact else 0:,}) give {mean_cell(exact)}.",
        "",
        *table(["shots for each state", "none", *head], rows),
        f"Networks of the neighbours, against nothing in the place of missed states: {count(networks)} comparisons.",
        "",
    ]
