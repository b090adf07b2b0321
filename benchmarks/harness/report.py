"""How tables and pictures of all studies are written: measures in their units, means with intervals, one scatter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.labels import place_names
from benchmarks.harness.study import Measure
from benchmarks.harness.summary import Result
from qpa_hf.comparison.statistics import Difference, Interval

MARKS = "os^vDP*X<>"
DIGITS = {"%": 1, "steps": 1}  # of units; 4 for all others


class Writing:
    """How a measure is written: in its unit, with the sign that it has for a reader.

    Args:
        measure: of the study.
        digits: number of digits after the point; None for those of the unit.
    """

    def __init__(self, measure: Measure, digits: int | None = None) -> None:
        self.name = measure.name.replace("_", "-")
        self.unit = measure.unit
        self._factor = (-1 if measure.is_higher_better else 1) * (100 if self.unit == "%" else 1)
        self._format = f"z.{DIGITS.get(self.unit, 4) if digits is None else digits}f"  # z: no minus before a zero

    def number(self, loss: float) -> float:
        """Return a number of `Result.losses`, or a difference of two, in the measure's unit."""
        return self._factor * loss

    def ends(self, interval: Interval) -> list[float]:
        """Return an interval of `Result.losses` in the measure's unit, the lower end first."""
        return sorted(map(self.number, interval))

    def text(self, loss: float, interval: Interval | None = None, sign: str = "") -> str:
        """Write a number of `Result.losses` with its interval, unless that has no width."""
        found = format(self.number(loss), sign + self._format)
        if interval is None or interval[0] == interval[1]:
            return found
        low, high = (format(end, sign + self._format) for end in self.ends(interval))
        return f"{found} ({low} to {high})"

    def mean(self, result: Result | None) -> str:
        """Write an arm's mean."""
        return "" if result is None else self.text(result.mean, result.interval)

    def difference(self, gap: Difference | None) -> str:
        """Write a difference; bold where it is significant."""
        if gap is None or math.isnan(gap.mean):
            return ""
        text = self.text(gap.mean, gap.interval, "+")
        return f"**{text}**" if gap.is_above or gap.is_below else text

    def claim(self, gap: Difference) -> str:
        """Write a difference with its unit and its corrected p-value."""
        unit = "points" if self.unit == "%" else self.unit
        return f"{self.text(gap.mean, gap.interval, '+')} {unit}, p = {gap.p:.2g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a Markdown table with an empty line after it."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] + [""]


def seeds_of(results: Iterable[Result]) -> str:
    """Say over how many seeds results are."""
    return " or ".join(map(str, sorted({len(one.losses) for one in results})))


def count(differences: Iterable[Difference | None]) -> str:
    """Say how many differences are above, below and not told from zero.

    Example:
        >>> count([Difference(0.2, (0.1, 0.3), 0.01), Difference(0.0, (-0.1, 0.1), 0.8), None])
        'worse in 1, better in 0, undecided in 1 of 2'
    """
    known = [one for one in differences if one is not None and one.interval is not None]
    n_above, n_below = sum(one.is_above for one in known), sum(one.is_below for one in known)
    return f"worse in {n_above}, better in {n_below}, undecided in {len(known) - n_above - n_below} of {len(known)}"


def bars(results: Sequence[Result], writing: Writing) -> list[list[float]]:
    """Return how far the intervals of some results reach below and above their means."""
    ends = [writing.ends(one.interval or (one.mean, one.mean)) for one in results]
    means = [writing.number(one.mean) for one in results]
    return [
        [max(0.0, mean - low) for mean, (low, _) in zip(means, ends, strict=True)],
        [max(0.0, high - mean) for mean, (_, high) in zip(means, ends, strict=True)],
    ]


def scatter(axes: Any, results: Sequence[Result], writing: Writing, colors: Mapping[str, str]) -> None:
    """Draw the measure against trained parameters, with a colour and a mark for each family."""
    named: set[str] = set()
    marks = dict(zip(colors, MARKS, strict=False))
    for one in results:
        if not math.isfinite(one.mean):
            continue
        label = None if one.family in named else one.family
        named.add(one.family)
        style = {"color": colors[one.family], "marker": marks[one.family], "linestyle": "none", "label": label}
        axes.errorbar(*point_of(one, writing), bars([one], writing), elinewidth=0.8, markersize=5, **style)
    axes.set(xlabel="trained parameters", ylabel=f"test {writing.name} ({writing.unit})", xscale="log")


def name_arms(axes: Any, results: Sequence[Result], writing: Writing, size: float) -> None:
    """Write the names of arms beside their points, once the axes have the limits that they are to have."""
    finite = [one for one in results if math.isfinite(one.mean)]
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    points = [(one, point_of(one, writing)) for one in finite]
    shown = [(one, (x, y)) for one, (x, y) in points if low <= y <= high and left <= x <= right]
    # Controls stand close to the arms that they control, and have no names.
    named = [(one.arm, point) for one, point in shown if one.family != "control"]
    place_names(axes, named, [point for _, point in shown], size)


def point_of(one: Result, writing: Writing) -> tuple[float, float]:
    """Return where an arm stands in a picture."""
    return one.n_trainable, writing.number(one.mean)


def save(figure: Any, path: Path, dpi: int = 150) -> Path:
    """Write a picture whose bytes do not depend on the version of matplotlib."""
    figure.savefig(path, dpi=dpi, metadata={"Software": None})
    return path
