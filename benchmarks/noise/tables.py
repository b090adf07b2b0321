"""Tables of the trainings, and how they stand to what the paper says."""

from __future__ import annotations

from benchmarks.harness.report import count, table
from benchmarks.noise.parts import DEVICE_ANSATZE, DEVICE_SHOTS, PAPER_SHOTS, Grid
from benchmarks.noise.results import WRITING, Results
from benchmarks.noise.setting import Setting
from qpa_hf.measurement.interpolation import INTERPOLATIONS
from qpa_hf.measurement.noise import DEVICES


def shots(results: Results, grid: Grid) -> list[str]:
    """Fig. 8: finite shots against exact probabilities, for each number of qubits."""
    widths = [n_qubits for n_qubits in grid.widths if results.find(Setting(n_qubits))]
    if not widths:
        return []
    shifted = {(n, level): Setting(n, level, "parameter_shift") for n in widths for level in PAPER_SHOTS}
    gaps = results.differences({key: (setting, Setting(key[0])) for key, setting in shifted.items()})
    rows = []
    for n in widths:
        exact = results.find(Setting(n))
        cells = [WRITING.difference(gaps.get((n, level))) for level in PAPER_SHOTS]
        rows.append([str(n), f"{exact.n_trainable:,}", WRITING.mean(exact), *cells])
    said = "; ".join(f"{level} is {count(gaps.get((n, level)) for n in widths)}" for level in PAPER_SHOTS)
    return [
        f"### {results.task}: shots (Fig. 8)",
        "",
        "Gradients of the angles by parameter shift, from as many shots again for each shifted circuit.",
        "",
        *table(["N", "trained", "exact", *(f"{level} minus exact" for level in PAPER_SHOTS)], rows),
        "The paper: more shots give better results, and 40 for each state come close to exact ones. Here, against "
        f"exact: {said} widths.",
        "",
    ]


def devices(results: Results, grid: Grid) -> list[str]:
    """Fig. 9: two devices' noise against none, for two ansätze."""
    ideal = {(n, a): Setting(n, DEVICE_SHOTS, ansatz=a) for n in grid.noisy_widths for a in DEVICE_ANSATZE}
    pairs = {
        (n, ansatz, device): (Setting(n, DEVICE_SHOTS, ansatz=ansatz, noise=device), setting)
        for (n, ansatz), setting in ideal.items()
        for device in DEVICES
    }
    pairs |= {(n, "", ""): (ideal[n, "rx_cnot"], ideal[n, "ry_cnot"]) for n in grid.noisy_widths}
    gaps = results.differences(pairs)
    rows = []
    for (n, ansatz), setting in ideal.items():
        found = results.find(setting)
        if found is not None:
            cells = [WRITING.difference(gaps.get((n, ansatz, device))) for device in DEVICES]
            rows.append([str(n), ansatz, f"{found.n_trainable:,}", WRITING.mean(found), *cells])
    if not rows:
        return []
    said = "; ".join(f"{device} is {count(gaps.get((*key, device)) for key in ideal)}" for device in DEVICES)
    axes = count(gaps.get((n, "", "")) for n in grid.noisy_widths)
    return [
        f"### {results.task}: noise (Fig. 9)",
        "",
        f"{DEVICE_SHOTS} shots everywhere; gradients of the angles through the simulated noise.",
        "",
        *table(["N", "ansatz", "trained", "noiseless", *(f"{d} minus noiseless" for d in DEVICES)], rows),
        f"The paper: noise improves most cases. Here: {said} cases.",
        "",
        f"The paper: without noise R_Y + CNOT is better than R_X + CNOT. Here R_X is {axes} widths.",
        "",
    ]


def interpolation(results: Results, grid: Grid) -> list[str]:
    """What stands in for missed states, from few shots to many."""
    width = grid.interpolated_width
    exact = results.find(Setting(width))
    levels = [level for level in grid.few_shots if results.find(Setting(width, level))]
    if not levels:
        return []
    others = [name for name in INTERPOLATIONS if name != "none"]
    pairs = {(s, i): (Setting(width, s, interpolation=i), Setting(width, s)) for s in levels for i in others}
    gaps = results.differences(pairs)
    rows = []
    for level in levels:
        cells = [WRITING.difference(gaps.get((level, name))) for name in others]
        rows.append([level, WRITING.mean(results.find(Setting(width, level))), *cells])
    networks = count(gaps.get((level, name)) for level in levels for name in ("network", "blend"))
    sizes = {i: results.find(Setting(width, grid.few_shots[0], interpolation=i)) for i in INTERPOLATIONS}
    head = [f"{i} minus none ({found.n_trainable:,})" for i, found in sizes.items() if found and i != "none"]
    return [
        f"### {results.task}: interpolation",
        "",
        f"N = {width}, gradients by the simulator's backward pass, trained numbers in brackets; exact probabilities "
        f"({exact.n_trainable if exact else 0:,}) give {WRITING.mean(exact)}.",
        "",
        *table(["shots for each state", "none", *head], rows),
        f"Networks of the neighbours, against nothing in the place of missed states: {networks} comparisons.",
        "",
    ]
