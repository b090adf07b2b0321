"""The study's runs in one file, and what they come to: a table for each part, and a picture."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.heads.arms import ARMS, HEAD, LOGISTIC
from benchmarks.heads.study import PARTS, SCREEN, TUNING_SEED
from qpa_hf.checkpoint import write_text
from qpa_hf.comparison import mean_interval

OUTPUT = record.RESULTS / "heads.json"
COLORS = {"quantum head": "tab:blue", "control": "tab:gray", "classical": "tab:orange"}
Row = dict[str, Any]


def write_runs(rows: list[Row], data: dict[str, int], path: Path) -> None:
    """Write all runs, a line each.

    Args:
        rows: of the study.
        data: how many sentences there are of each kind.
        path: JSON file.
    """
    environments: list[Any] = []
    lines = [json.dumps(record.with_place(row, environments)) for row in rows]
    head = {"sentences": data, "tuning_seed": TUNING_SEED, "environments": environments}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(head)[:-1] + ',\n "runs": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


@dataclass(frozen=True)
class Result:
    """One arm's reported runs on one part.

    Args:
        arm: its name.
        rows: of its runs, in the order of the seeds.
    """

    arm: str
    rows: list[Row]

    @property
    def accuracies(self) -> list[float]:
        """On the test sentences, in per cent."""
        return [100 * row["test"] for row in self.rows]

    @property
    def mean(self) -> float:
        """Mean accuracy on the test sentences, in per cent."""
        return statistics.fmean(self.accuracies)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % bootstrap interval over the seeds; None where there is nothing random."""
        return mean_interval(self.accuracies) if len(set(self.accuracies)) > 1 else None

    def minus(self, other: Result) -> tuple[float, tuple[float, float] | None]:
        """Return the mean difference to another arm and its interval, paired by seed; the other may have one run."""
        theirs = other.accuracies if len(other.rows) == len(self.rows) else other.accuracies[:1] * len(self.rows)
        gaps = [a - b for a, b in zip(self.accuracies, theirs, strict=True)]
        return statistics.fmean(gaps), mean_interval(gaps) if len(set(gaps)) > 1 else None


def results(runs: list[Row]) -> dict[str, list[Result]]:
    """Return the reported runs by part, both in the study's order."""
    found = {}
    for part in PARTS:
        own = [[r for r in runs if (r["part"], r["arm"], r["purpose"]) == (part, arm, "final")] for arm in ARMS]
        found[part] = [Result(arm, rows) for arm, rows in zip(ARMS, own, strict=True) if rows]
    return {part: rows for part, rows in found.items() if rows}


def write(path: Path) -> list[Path]:
    """Write the table and the picture beside a file of runs; return what was written.

    Raises:
        FileNotFoundError: if there are no runs.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. Run `python -m benchmarks.heads` first.")
    known = json.loads(path.read_text(encoding="utf-8"))
    found = results(known["runs"])
    table, picture = path.with_suffix(".md"), path.with_suffix(".png")
    write_text(table, "\n".join(_page(known, found)) + "\n")
    _picture(found, picture)
    return [path, table, picture]


def _page(known: dict[str, Any], found: dict[str, list[Result]]) -> list[str]:
    n = known["sentences"]
    lines = [
        "# Quantum heads on SST-2",
        "",
        f"Embeddings of all-MiniLM-L6-v2 (384 numbers), frozen; {n['pool']:,} sentences to train on, "
        f"{n['development']:,} to choose hyperparameters on (seed {known['tuning_seed']}), {n['test']:,} to test on. "
        "Accuracy in per cent: mean and 95 % bootstrap interval over the seeds, which draw the training sentences, "
        "the first parameters and the order; differences are paired by seed. The test sentences themselves add an "
        f"uncertainty of {100 * 1.96 * math.sqrt(0.16 / n['test']):.1f} points at 80 %, the same ones for all arms. "
        "They were held out of GLUE's training file, which has phrases of one sentence in many rows, so these figures "
        "are not those of GLUE's own validation sentences. Intervals are not corrected for the number of comparisons.",
    ]
    for part, rows in found.items():
        lines += ["", f"## {_title(part)}", "", *_table(rows)]
    return lines


def _title(part: str) -> str:
    budget = PARTS[part].budget
    return f"Training sentences: {part} (heads: {budget.n_epochs} epochs, batches of {budget.batch_size})"


def _table(rows: list[Result]) -> list[str]:
    by_name = {row.arm: row for row in rows}
    references = [name for name in (LOGISTIC, HEAD) if name in by_name]
    head = [
        "arm",
        "trained numbers",
        "hyperparameter",
        "seeds",
        "accuracy",
        *(f"minus {name}" for name in references),
        "CPU s",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        first = row.rows[0]
        gaps = ["" if name == row.arm else _signed(*row.minus(by_name[name])) for name in references]
        cells = [
            row.arm,
            "" if first["n_trained"] is None else f"{first['n_trained']:,}",
            f"{first['value']:g}",
            str(len(row.rows)),
            f"{row.mean:.2f}{_range(row.interval)}",
            *gaps,
            f"{statistics.fmean(r['cpu_seconds'] for r in row.rows):.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _range(interval: tuple[float, float] | None, sign: str = "") -> str:
    return f" ({interval[0]:{sign}.2f} to {interval[1]:{sign}.2f})" if interval else ""


def _signed(mean: float, interval: tuple[float, float] | None) -> str:
    return f"{mean:+.2f}{_range(interval, '+')}"


def _picture(found: dict[str, list[Result]], path: Path) -> None:
    """Draw accuracy by part for the arms that are on all, and the screened heads beside."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    everywhere = [arm for arm in ARMS if ARMS[arm].is_everywhere]
    for i, arm in enumerate(everywhere):
        own = {part: row for part, rows in found.items() for row in rows if row.arm == arm}
        places = [list(PARTS).index(part) + (i - len(everywhere) / 2) * 0.06 for part in own]
        style = {"color": COLORS[ARMS[arm].family], "marker": "os^vDPX*<>"[i], "linestyle": "none", "label": arm}
        left.errorbar(places, [row.mean for row in own.values()], _bars(list(own.values())), capsize=2, **style)
    left.set_xticks(range(len(PARTS)), list(PARTS))
    left.set(xlabel="sentences trained on", ylabel="test accuracy, %", title="Heads and classical classifiers")
    left.legend(fontsize="small")
    screened = [row for row in found.get(SCREEN, []) if ARMS[row.arm].family != "classical"]
    right.errorbar([row.mean for row in screened], range(len(screened)), xerr=_bars(screened), fmt="o", capsize=2)
    right.set_yticks(range(len(screened)), [row.arm for row in screened])
    right.invert_yaxis()
    right.set(xlabel="test accuracy, %", title=f"Heads trained on {SCREEN} sentences")
    for panel in (left, right):
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def _bars(rows: list[Result]) -> list[list[float]]:
    ranges = [row.interval or (row.mean, row.mean) for row in rows]
    low = [max(0.0, row.mean - r[0]) for row, r in zip(rows, ranges, strict=True)]
    return [low, [max(0.0, r[1] - row.mean) for row, r in zip(rows, ranges, strict=True)]]
