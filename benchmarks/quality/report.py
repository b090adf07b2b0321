"""A task's report, made from its merged file alone: a summary for machines, a table and a picture for people."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from benchmarks.quality.arms import LORA
from benchmarks.quality.merged import Merged
from benchmarks.quality.summary import Interval, Result, Summary, summarize
from benchmarks.quality.verdicts import sentences
from qpa_hf.checkpoint import write_text
from qpa_hf.plots import is_available

NAMES = {
    "accuracy": "accuracy",
    "nats_per_byte": "nats per byte",
    "perplexity": "perplexity",
    "padded_perplexity": "padded perplexity (paper)",
}
FORMATS = {"accuracy": ".2%", "nats_per_byte": ".4f"}
COLORS = {
    "PEFT": "tab:blue",
    "QPA": "tab:red",
    "QPA, paper": "tab:brown",
    "QPA, gradient": "tab:orange",
    "direct": "tab:green",
    "control": "tab:gray",
}


def write(merged: Merged, path: Path) -> list[Path]:
    """Write the summary, the table and the picture beside a merged file; return what was written.

    Args:
        merged: the file's content.
        path: the merged file; the summary is `<stem>_summary.json`, the others have its name with .md and .png.
    """
    summary = summarize(merged)
    written = [path.with_name(f"{path.stem}_summary.json"), path.with_suffix(".md")]
    write_text(written[0], json.dumps(_for_machines(summary), indent=1, allow_nan=False) + "\n")
    write_text(written[1], "\n".join(_table(summary, merged)) + "\n")
    if is_available():
        written.append(_picture(summary, path.with_suffix(".png")))
    return written


def _for_machines(summary: Summary) -> dict[str, Any]:
    front = {result.arm for result in summary.front()}
    lora = summary.by_name().get(LORA)
    rows = []
    for result in summary.results:
        gap = result.minus(lora) if lora else None
        rows.append(
            {
                "arm": result.arm,
                "family": result.family,
                "n_trainable": result.n_trainable,
                "rate": result.rate,
                "is_at_edge": result.is_at_edge,
                "n_seeds": len(result.losses),
                "cross_entropy": _finite(result.mean),
                "interval": result.interval,
                "development": _finite(result.development),
                **{name: _finite(value) for name, value in result.metrics.items()},
                "minus_lora": {"mean": _finite(gap.mean), "interval": gap.interval} if gap else None,
                "is_on_front": result.arm in front,
                "seconds": _finite(result.seconds),
            }
        )
    return {"task": summary.task, "rows": rows, "failed": summary.failed, "sentences": sentences(summary)}


def _table(summary: Summary, merged: Merged) -> list[str]:
    metrics = [name for name in NAMES if any(name in result.metrics for result in summary.results)]
    head = ["arm", "trainable", "rate", "test cross-entropy", *(NAMES[name] for name in metrics), f"minus {LORA}", "s"]
    lora, front = summary.by_name().get(LORA), {result.arm for result in summary.front()}
    lines = [f"# {summary.task}", "", _row(head), _row(["---"] * len(head))]
    for result in summary.results:
        gap = result.minus(lora) if lora else None
        cells = [
            f"**{result.arm}**" if result.arm in front else result.arm,
            f"{result.n_trainable:,}",
            f"{result.rate:g}{' (edge)' if result.is_at_edge else ''}" if result.n_trainable else "",
            f"{result.mean:.4f}{_range(result.interval)}",
            *(_metric(result, name) for name in metrics),
            f"{gap.mean:+.4f}{_range(gap.interval, '+')}" if gap else "",
            f"{result.seconds:.0f}",
        ]
        lines.append(_row(cells))
    n_seeds = sorted({len(result.losses) for result in summary.results})
    grid = merged["protocol"]["rates"]
    rates = ", ".join(f"{rate:g}" for rate in grid)
    if any(row["rate"] not in grid for row in merged["runs"]):
        rates += ", and beyond these where an arm is best at an end"
    lines += [
        "",
        f"Means and 95 % bootstrap intervals over {' or '.join(map(str, n_seeds))} seeds, differences paired by seed; "
        f"cross-entropy in nats; bold: no arm with as few numbers has a lower mean. Rates: {rates}.",
        "Intervals cover what a seed changes (order of the data, initialisation), not the choice of the test text. "
        "Those of few seeds are too narrow, and nothing is corrected for the number of comparisons: of many equally "
        "good rivals some look better by chance.",
        "",
        f"Settings: `{json.dumps(merged['settings'])}`.",
        "",
        *(f"- {line}" for line in sentences(summary)),
    ]
    missing = {**summary.failed, **merged["without_arm"]}
    return lines + ["", "Without a result:", "", *(f"- {arm}: {reason}" for arm, reason in missing.items())]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _range(interval: Interval | None, sign: str = "") -> str:
    return f" [{interval[0]:{sign}.4f}, {interval[1]:{sign}.4f}]" if interval else ""


def _metric(result: Result, name: str) -> str:
    return format(result.metrics.get(name, math.nan), FORMATS.get(name, ".2f"))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _picture(summary: Summary, path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 9), layout="constrained")
    axes = figure.subplots()
    named: set[str] = set()
    for result in summary.results:
        if not math.isfinite(result.mean):
            continue
        if result.n_trainable == 0:
            axes.axhline(result.mean, color="black", linestyle=":", label=result.arm)
            continue
        label = None if result.family in named else result.family
        named.add(result.family)
        point = (result.n_trainable, result.mean)
        low, high = result.interval or (result.mean, result.mean)
        bars = [[max(0.0, result.mean - low)], [max(0.0, high - result.mean)]]
        color = COLORS[result.family]
        axes.errorbar(*point, bars, marker="o", linestyle="none", color=color, label=label)
        if result.family != "control":  # they stand close to the arms that they control
            axes.annotate(result.arm, point, (4, 3), fontsize=6, textcoords="offset points")
    front = [result for result in summary.front() if result.n_trainable]
    points = ([result.n_trainable for result in front], [result.mean for result in front])
    axes.step(*points, where="post", color="black", linewidth=0.8, alpha=0.6, label="Pareto front")
    axes.set(
        xlabel="trainable numbers",
        ylabel="test cross-entropy (nats, lower is better)",
        xscale="log",
        title=f"{summary.task}: quality against trainable numbers, 95 % intervals over seeds",
    )
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    return path
