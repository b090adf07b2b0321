"""The results of a task's trainings by setting, and what their paired differences say together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.noise.setting import Setting
from benchmarks.quality.merged import Merged
from benchmarks.quality.summary import Difference, Result, summarize


@dataclass(frozen=True)
class Results:
    """A task's results.

    Args:
        task: its name.
        known: by the setting's name.
    """

    task: str
    known: dict[str, Result]

    @classmethod
    def of(cls, merged: Merged) -> Results:
        """Return the results of a task's file."""
        return cls(merged["task"], summarize(merged).by_name())

    def find(self, setting: Setting) -> Result | None:
        """Return the result of a setting, None if it has not been run."""
        return self.known.get(setting.name)

    def difference(self, setting: Setting, reference: Setting) -> Difference | None:
        """Return a setting's cross-entropy minus another's, paired by seed; None where one has not been run."""
        found, other = self.find(setting), self.find(reference)
        return found.minus(other) if found and other else None


def count(differences: Iterable[Difference | None]) -> str:
    """Say how many differences are above, below and not told from zero.

    Example:
        >>> count([Difference(0.2, (0.1, 0.3)), Difference(0.0, (-0.1, 0.1)), None])
        'worse in 1, better in 0, undecided in 1 of 2'
    """
    known = [one for one in differences if one is not None and one.interval is not None]
    n_above, n_below = sum(one.is_above for one in known), sum(one.is_below for one in known)
    undecided = len(known) - n_above - n_below
    return f"worse in {n_above}, better in {n_below}, undecided in {undecided} of {len(known)}"


def mean_cell(result: Result | None) -> str:
    """Return a mean cross-entropy with its interval."""
    if result is None:
        return ""
    return f"{result.mean:.4f}" + (
        f" ({result.interval[0]:.4f} to {result.interval[1]:.4f})" if result.interval else ""
    )


def difference_cell(difference: Difference | None) -> str:
    """Return a difference with its interval; bold where the interval does not hold zero."""
    if difference is None or math.isnan(difference.mean):
        return ""
    if difference.interval is None:
        return f"{difference.mean:+.4f}"
    low, high = difference.interval
    text = f"{difference.mean:+.4f} ({low:+.4f} to {high:+.4f})"
    return f"**{text}**" if difference.is_above or difference.is_below else text


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return a Markdown table with an empty line after it."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] + [""]
