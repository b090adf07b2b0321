"""The study's report, made from the tasks' files alone: a table and sentences for each, and one picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import results
from benchmarks.harness.report import Writing, name_arms, save, scatter, seeds_of, table
from benchmarks.harness.results import Content
from benchmarks.harness.study import Measure
from benchmarks.harness.summary import Summary, summarize
from benchmarks.quantum_train.arms import DIRECT
from qpa_hf.checkpoint import write_text
from qpa_hf.comparison.statistics import FEWEST_SEEDS
from qpa_hf.plots import PALETTE, in_style, is_available

COLORS = {
    "direct": PALETTE["black"],
    "original": PALETTE["orange"],
    "values": PALETTE["purple"],
    "chunks": PALETTE["vermilion"],
    "control": PALETTE["gray"],
    "random subspace": PALETTE["blue"],
}
TICKS = (200, 500, 1000, 2000, 5000)  # trained parameters


def write(folder: Path, tasks: Sequence[str]) -> list[Path]:
    """Write quantum_train.md and .png of the tasks that have a file in a folder; return what was written."""
    paths = [folder / f"quantum_train_{name}.json" for name in tasks]
    found = [results.read(path) for path in paths if path.is_file()]
    text = "\n".join(line for one in found for line in _section(one))
    written = [folder / "quantum_train.md"]
    write_text(written[0], f"# Quantum-Train\n\n{text}")
    if is_available():
        written.append(_picture(found, folder / "quantum_train.png"))
    return written


def _section(found: Content) -> list[str]:
    summary = summarize(found)
    writing = Writing(Measure(**found["measure"]))
    whole = next((one.n_trainable for one in summary.results if one.arm == DIRECT), None)
    front = {one.arm for one in summary.front()}
    head = ["arm", "trained", "of the network", "rate", f"{writing.name} ({writing.unit})"]
    rows = [
        [
            f"**{one.arm}**" if one.arm in front else one.arm,
            f"{one.n_trainable:,}",
            f"{one.n_trainable / whole:.0%}" if whole else "",
            f"{one.rate:g}{' (edge)' if one.is_at_edge else ''}",
            writing.mean(one),
        ]
        for one in summary.results
    ]
    references = "; ".join(f"{name}: {writing.text(value)}" for name, value in _losses(found).items())
    return [
        f"## {summary.task}: {found['network']}",
        "",
        *table(head, rows),
        f"Means and 95 % t-intervals over {seeds_of(summary.results)} seeds, which cover what a seed changes and not "
        "the choice of the test part; bold: no arm with as few parameters has a better mean; p-values by Holm's "
        "correction over the task's differences. Rates of the grid: "
        f"{', '.join(f'{rate:g}' for rate in found['protocol']['rates'])}. Settings: "
        f"`{json.dumps(found['settings'])}`. Without a network: {references} {writing.unit}.",
        "",
        *(f"- {line}" for line in sentences(summary, writing)),
        "",
    ]


def _losses(found: Content) -> dict[str, float]:
    """Return what simple methods without a network reach, as arms' results have it."""
    sign = -1 if found["measure"]["is_higher_better"] else 1
    return {name: sign * value for name, value in found["references"].items()}


def sentences(summary: Summary, writing: Writing) -> list[str]:
    """Say of each arm that answers another how far apart they are."""
    known = summary.by_name()
    lines = []
    for pair, gap in summary.claims(summary.answers()).items():
        start = " minus ".join(f"{arm} ({known[arm].n_trainable:,})" for arm in pair)
        if gap.interval is None:
            lines.append(f"{start} is undecided: a run diverged, or there are fewer than {FEWEST_SEEDS} seeds.")
            continue
        verdict = "better" if gap.is_below else "worse" if gap.is_above else "no difference is shown"
        lines.append(f"{start}: {writing.claim(gap)}, {verdict}.")
    for one in summary.results:
        n_diverged = sum(math.isinf(loss) for loss in one.losses.values())
        if n_diverged:
            lines.append(f"{one.arm} diverged in {n_diverged} of {len(one.losses)} runs.")
    return lines


@in_style()
def _picture(tasks: list[Content], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8 * len(tasks), 13), layout="constrained")
    whole, near = figure.subplots(2, len(tasks), squeeze=False)
    for i, found in enumerate(tasks):
        _panel(whole[i], found)
        _panel(near[i], found)
        near[i].set_ylim(_range_of_most(found))
        for axes in (whole[i], near[i]):
            name_arms(axes, summarize(found).results, Writing(Measure(**found["measure"])), size=5)
    return save(figure, path)


def _range_of_most(found: Content) -> list[float]:
    """Return the ends of an axis on which the better three quarters of the arms stand: failures squeeze the rest."""
    means = sorted(one.mean for one in summarize(found).results if math.isfinite(one.mean))
    best, worst = means[0], means[max(1, 3 * len(means) // 4) - 1]
    margin = max((worst - best) / 5, 1e-3)  # of arms that are all alike, too
    return Writing(Measure(**found["measure"])).ends((best - margin, worst + margin))


def _panel(axes: Any, found: Content) -> None:
    writing = Writing(Measure(**found["measure"]))
    scatter(axes, summarize(found).results, writing, COLORS)
    for name, value in _losses(found).items():
        height = writing.number(value)
        axes.axhline(height, color="black", linestyle=":", linewidth=0.7)
        place = {"xycoords": ("axes fraction", "data"), "fontsize": 6, "annotation_clip": True}
        axes.annotate(name, (0.02, height), **place)
    labels = [f"{tick:,}" for tick in TICKS]
    axes.set(xticks=TICKS, xticklabels=labels, title=f"{found['task']}: {found['network']}")
    axes.minorticks_off()
    axes.legend(fontsize="x-small")
