"""The study's report, made from the tasks' files alone: a table and sentences for each, and one picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.quality import merged
from benchmarks.quality.merged import Merged
from benchmarks.quality.summary import Interval, Result, Summary
from benchmarks.quantum_train.arms import ARMS, DIRECT
from benchmarks.quantum_train.protocol import loss
from qpa_hf.checkpoint import write_text
from qpa_hf.comparison import FEWEST_SEEDS
from qpa_hf.plots import is_available

COLORS = {
    "direct": "black",
    "original": "tab:orange",
    "values": "tab:olive",
    "chunks": "tab:red",
    "control": "tab:gray",
    "random subspace": "tab:blue",
}
TICKS = (200, 500, 1000, 2000, 5000)  # trained numbers


def write(folder: Path, tasks: Sequence[str]) -> list[Path]:
    """Write quantum_train.md and .png of the tasks that have a file in a folder; return what was written."""
    paths = [folder / f"quantum_train_{name}.json" for name in tasks]
    found = [merged.read(path) for path in paths if path.is_file()]
    text = "\n".join(line for one in found for line in _section(one))
    written = [folder / "quantum_train.md"]
    write_text(written[0], f"# Quantum-Train\n\n{text}")
    if is_available():
        written.append(_picture(found, folder / "quantum_train.png"))
    return written


def summarize(found: Merged) -> Summary:
    """Return every arm's reported runs; `losses` is the measure, with a minus where more is better."""
    results = [_result(name, found) for name in ARMS if any(row["arm"] == name for row in _final(found))]
    return Summary(found["task"], sorted(results, key=lambda one: (one.n_trainable, one.arm)), {})


def _final(found: Merged) -> list[dict[str, Any]]:
    return [row for row in found["runs"] if row["part"] == "test"]


def _result(name: str, found: Merged) -> Result:
    about, measure, grid = found["arms"][name], found["measure"], found["protocol"]["rates"]
    rows = [row for row in _final(found) if row["arm"] == name]
    rate = rows[0]["rate"]
    tuning = [row for row in found["runs"] if row["arm"] == name and row["part"] != "test" and row["rate"] == rate]
    sign = -1 if measure["is_higher_better"] else 1
    return Result(
        arm=name,
        family=about["family"],
        control_of=about["control_of"],
        n_trainable=rows[0]["n_trainable"],
        rate=rate,
        is_at_edge=len(grid) > 1 and rate in (min(grid), max(grid)),
        losses={row["seed"]: math.inf if "diverged" in row else sign * row[measure["name"]] for row in rows},
        development=fmean(map(loss, tuning)),
        metrics={},
        seconds=fmean(row["seconds"] for row in rows),
    )


class Writing:
    """How a measure is written: in its unit, with the sign that it has for a reader."""

    def __init__(self, measure: dict[str, Any]) -> None:
        self.name, self.unit = measure["name"], measure["unit"]
        self._sign = -1 if measure["is_higher_better"] else 1
        self._format = "z.4f" if self.unit == "ppm" else "z.1f"  # z: no minus before a zero

    def scaled(self, value: float) -> float:
        """Return a value of the measure in its unit."""
        return 100 * value if self.unit == "%" else value

    def number(self, found: float) -> float:
        """Return a number of `Result.losses`, or a difference of two, in the measure's unit."""
        return self.scaled(self._sign * found)

    def text(self, number: float, sign: str = "") -> str:
        """Write a number that is in the measure's unit."""
        return format(number, sign + self._format)

    def range(self, interval: Interval | None, sign: str = "") -> str:
        """Write an interval of `Result.losses`, the lower end first."""
        if interval is None:
            return ""
        low, high = sorted(map(self.number, interval))
        return f" [{self.text(low, sign)}, {self.text(high, sign)}]"


def _section(found: Merged) -> list[str]:
    summary, writing = summarize(found), Writing(found["measure"])
    whole = next((one.n_trainable for one in summary.results if one.arm == DIRECT), None)
    front = {one.arm for one in summary.front()}
    head = ["arm", "trained numbers", "of the network", "rate", f"{writing.name} ({writing.unit})"]
    lines = [f"## {summary.task}: {found['network']}", "", _row(head), _row(["---"] * len(head))]
    for one in summary.results:
        cells = [
            f"**{one.arm}**" if one.arm in front else one.arm,
            f"{one.n_trainable:,}",
            f"{one.n_trainable / whole:.0%}" if whole else "",
            f"{one.rate:g}{' (edge)' if one.is_at_edge else ''}",
            writing.text(writing.number(one.mean)) + writing.range(one.interval),
        ]
        lines.append(_row(cells))
    n_seeds = sorted({len(one.losses) for one in summary.results})
    references = "; ".join(
        f"{name}: {writing.text(writing.scaled(value))}" for name, value in found["references"].items()
    )
    return [
        *lines,
        "",
        f"Means and 95 % bootstrap intervals over {' or '.join(map(str, n_seeds))} seeds, which cover what a seed "
        "changes and not the choice of the test part; bold: no arm with as few numbers has a better mean. Rates of "
        f"the grid: {', '.join(f'{rate:g}' for rate in found['protocol']['rates'])}. Settings: "
        f"`{json.dumps(found['settings'])}`. Without a network: {references} {writing.unit}.",
        "",
        *(f"- {line}" for line in sentences(summary, writing)),
        "",
    ]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def sentences(summary: Summary, writing: Writing) -> list[str]:
    """Say of each arm that answers another how far apart they are."""
    known, lines = summary.by_name(), []
    for answer in summary.results:
        if answer.control_of not in known:
            continue
        ours = known[answer.control_of]
        gap = ours.minus(answer)
        start = f"{ours.arm} ({ours.n_trainable:,}) minus {answer.arm} ({answer.n_trainable:,})"
        if gap.interval is None:
            lines.append(f"{start} is undecided: a run diverged, or there are fewer than {FEWEST_SEEDS} seeds.")
            continue
        verdict = "better" if gap.is_below else "worse" if gap.is_above else "no difference is shown"
        unit = "points" if writing.unit == "%" else writing.unit
        difference = f"{writing.text(writing.number(gap.mean), '+')}{writing.range(gap.interval, '+')} {unit}"
        lines.append(f"{start}: {difference}, {verdict}.")
    return lines


def _picture(tasks: list[Merged], path: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8 * len(tasks), 13), layout="constrained")
    whole, near = figure.subplots(2, len(tasks), squeeze=False)
    for i, found in enumerate(tasks):
        _panel(whole[i], found)
        _panel(near[i], found)
        near[i].set_ylim(_range_of_most(found))
    figure.savefig(path, dpi=150)
    return path


def _range_of_most(found: Merged) -> list[float]:
    """Return the ends of an axis on which the better three quarters of the arms stand: failures squeeze the rest."""
    writing = Writing(found["measure"])
    means = sorted(one.mean for one in summarize(found).results if math.isfinite(one.mean))
    best, worst = means[0], means[max(1, 3 * len(means) // 4) - 1]
    margin = max((worst - best) / 5, 1e-3)  # of arms that are all alike, too
    return sorted(map(writing.number, (best - margin, worst + margin)))


def _panel(axes: Any, found: Merged) -> None:
    summary, writing = summarize(found), Writing(found["measure"])
    named: set[str] = set()
    for one in summary.results:
        if not math.isfinite(one.mean):
            continue
        label = None if one.family in named else one.family
        named.add(one.family)
        mean = writing.number(one.mean)
        low, high = sorted(map(writing.number, one.interval or (one.mean, one.mean)))
        bars = [[max(0.0, mean - low)], [max(0.0, high - mean)]]
        axes.errorbar(one.n_trainable, mean, bars, marker="o", color=COLORS[one.family], label=label, alpha=0.8)
        if one.family != "control":  # they stand close to the arms that they control
            axes.annotate(
                one.arm, (one.n_trainable, mean), (4, 3), fontsize=5, textcoords="offset points", annotation_clip=True
            )
    for name, value in found["references"].items():
        axes.axhline(writing.scaled(value), color="black", linestyle=":", linewidth=0.7)
        axes.annotate(
            name, (0.02, writing.scaled(value)), xycoords=("axes fraction", "data"), fontsize=6, annotation_clip=True
        )
    axes.set(
        xlabel="trained numbers",
        ylabel=f"test {writing.name} ({writing.unit})",
        xscale="log",
        xticks=TICKS,
        xticklabels=[f"{tick:,}" for tick in TICKS],
        title=f"{summary.task}: {found['network']}",
    )
    axes.minorticks_off()
    axes.legend(fontsize="x-small")
