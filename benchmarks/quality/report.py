"""A task's report, made from its file alone: a table with verdicts, and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.report import name_arms, save, scatter, seeds_of, table
from benchmarks.harness.results import Content
from benchmarks.harness.summary import Result, Summary, summarize
from benchmarks.quality.arms import LORA
from benchmarks.quality.resampling import by_seed, over_rows
from benchmarks.quality.verdicts import WRITING, sentences
from qpa_hf.checkpoint import write_text
from qpa_hf.plots import PALETTE, in_style, is_available, plain_numbers

NAMES = {
    "accuracy": "accuracy",
    "nats_per_byte": "nats per byte",
    "perplexity": "perplexity",
    "padded_perplexity": "padded perplexity (paper)",
}
FORMATS = {"accuracy": ".2%", "nats_per_byte": ".4f"}
COLORS = {
    "PEFT": PALETTE["sky"],
    "QPA": PALETTE["purple"],
    "QPA, paper": PALETTE["orange"],
    "QPA, gradient": PALETTE["vermilion"],
    "direct": PALETTE["green"],
    "orthogonal": PALETTE["blue"],
    "Quantum-PEFT": PALETTE["black"],
    "control": PALETTE["gray"],
}


def write(found: Content, path: Path) -> list[Path]:
    """Write the table and the picture beside a task's file; return what was written.

    Args:
        found: the file's content.
        path: the file.
    """
    summary = summarize(found)
    written = [path.with_suffix(".md")]
    write_text(written[0], "\n".join(_page(summary, found)) + "\n")
    if is_available():
        written.append(_picture(summary, path.with_suffix(".png")))
    return written


def _page(summary: Summary, found: Content) -> list[str]:
    metrics = [name for name in NAMES if any(name in result.metrics for result in summary.results)]
    head = ["arm", "trainable", "rate", "test cross-entropy", *(NAMES[name] for name in metrics), f"minus {LORA}", "s"]
    lora = summary.by_name().get(LORA)
    front = {result.arm for result in summary.front()}
    rows = []
    for result in summary.results:
        gap = result.minus(lora) if lora else None
        cells = [
            f"**{result.arm}**" if result.arm in front else result.arm,
            f"{result.n_trainable:,}",
            f"{result.rate:g}{' (edge)' if result.is_at_edge else ''}" if result.n_trainable else "",
            WRITING.mean(result),
            *(format(result.metrics.get(name, math.nan), FORMATS.get(name, ".2f")) for name in metrics),
            WRITING.text(gap.mean, gap.interval, "+") if gap else "",
            f"{result.seconds:.0f}",
        ]
        rows.append(cells)
    grid = found["protocol"]["rates"]
    rates = ", ".join(f"{rate:g}" for rate in grid)
    if any(row["rate"] not in grid for row in found["runs"]):
        rates += ", and beyond these where an arm is best at an end"
    missing = {**summary.failed, **found["without_arm"]}
    return [
        f"# {summary.task}",
        "",
        *table(head, rows),
        f"Means and 95 % t-intervals over {seeds_of(summary.results)} seeds, differences paired by seed; "
        "cross-entropy in nats; bold: on the Pareto front, no arm with as few parameters has a lower mean. "
        f"Rates: {rates}.",
        "Intervals cover what a seed changes (order of the data, initialisation), not the choice of the test text. "
        "Each is for one number; of many, one in twenty does not hold the true value. The p-values below are by "
        "Holm's correction over all differences that the sentences name.",
        "",
        f"Settings: `{json.dumps(found['settings'])}`.",
        "",
        *(f"- {line}" for line in [*sentences(summary), *of_rows(summary, found)]),
        *("", "Without a result:", ""),
        *(f"- {arm}: {reason}" for arm, reason in missing.items()),
    ]


def of_rows(summary: Summary, found: Content) -> list[str]:
    """Return what the choice of the test rows does to controls and the arms they answer, where runs recorded it."""
    lines = []
    for arm, control in summary.answers():
        own, other = (by_seed(found["runs"], name) for name in (arm, control))
        seeds = [seed for seed in own if seed in other]
        gap = summary.by_name()[arm].minus(summary.by_name()[control])
        interval = over_rows(gap.mean, [(own[seed], other[seed]) for seed in seeds])
        if interval is not None:
            ends = " to ".join(WRITING.text(end, sign="+") for end in interval)
            lines.append(f"{arm} minus {control}: {ends} over the choice of the test rows, the seeds as they are.")
    return lines


@in_style()
def _picture(summary: Summary, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8.5))
    axes = figure.subplots()
    drawn = [result for result in summary.results if result.n_trainable]
    scatter(axes, drawn, WRITING, COLORS)
    front = [result for result in summary.front() if result.n_trainable]
    points = ([result.n_trainable for result in front], [result.mean for result in front])
    axes.step(
        *points, where="post", color="black", linestyle="-", marker="", linewidth=0.8, label="Pareto front of means"
    )
    _limit(axes, drawn)
    plain_numbers(axes.xaxis)
    for result in summary.results:
        if result.n_trainable == 0:
            _draw_base(axes, result)
    axes.set_title(f"{summary.task}: quality against trained parameters")
    figure.supxlabel(
        "Further down and further left is better. Bars: 95 % t-intervals over seeds. Below the line no arm with "
        "as few parameters has a lower mean; two arms whose bars overlap may differ by chance.",
        fontsize="small",
        x=0.01,
        ha="left",
    )
    axes.legend(loc="upper right")
    name_arms(axes, drawn, WRITING, size=6.5)
    return save(figure, path)


def _limit(axes: Any, drawn: Sequence[Result]) -> None:
    """Cut the axis where one arm far off would squeeze all others: it goes on above by less than half of the rest."""
    means = sorted(result.mean for result in drawn if math.isfinite(result.mean))
    most = means[max(0, math.ceil(0.95 * len(means)) - 1)]
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, most + 0.5 * (most - means[0])))


def _draw_base(axes: Any, result: Result) -> None:
    """Draw the base's own line, or say how far above it lies; it stretches no axis."""
    low, high = axes.get_ylim()
    if low <= result.mean <= high:
        axes.axhline(result.mean, color="black", linestyle=":", marker="", label=result.arm)
        return
    text = f"{result.arm}: {result.mean:.4f}, {'above' if result.mean > high else 'below'}"
    place = (0.01, 0.99, "top") if result.mean > high else (0.01, 0.01, "bottom")
    axes.text(*place[:2], text, transform=axes.transAxes, va=place[2], fontsize="small")
