"""The study's report, made from its file alone: a table for each part, and a picture."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import results
from benchmarks.harness.report import Writing, bars, save, table
from benchmarks.harness.results import Content
from benchmarks.harness.study import Measure
from benchmarks.harness.summary import Result, Summary, summarize
from benchmarks.heads.arms import ARMS, HEAD, LOGISTIC
from benchmarks.heads.study import PARTS, SCREEN, on
from qpa_hf.checkpoint import write_text
from qpa_hf.comparison.statistics import Difference
from qpa_hf.plots import PALETTE, in_style

COLORS = {"quantum head": PALETTE["blue"], "control": PALETTE["gray"], "classical": PALETTE["vermilion"]}


def by_part(found: Content) -> dict[str, Summary]:
    """Return what the runs of each part come to, both in the study's order.

    An arm without anything random has one run, which stands beside every seed of the others; two such arms differ by
    what they differ by, and there is no p-value to it.
    """
    known = summarize(found).by_name()
    parts = {}
    for part in PARTS:
        own = {arm: known[on(arm, part)] for arm in ARMS if on(arm, part) in known}
        seeds = {seed for one in own.values() for seed in one.losses}
        for arm, one in own.items():
            if not ARMS[arm].is_random and PARTS[part].n_rows is None:
                own[arm] = replace(one, losses=dict.fromkeys(seeds, one.mean))
        if own:
            parts[part] = Summary(part, [replace(one, arm=arm) for arm, one in own.items()], {})
    return parts


def write(path: Path) -> list[Path]:
    """Write the table and the picture beside the study's file; return what was written."""
    found = results.read(path)
    writing = Writing(Measure(**found["measure"]), digits=2)
    parts = by_part(found)
    written = path.with_suffix(".md")
    write_text(written, "\n".join(_page(found, parts, writing)))
    return [path, written, _picture(parts, writing, path.with_suffix(".png"))]


def _page(found: Content, parts: dict[str, Summary], writing: Writing) -> list[str]:
    n = found["settings"]
    (seed,) = found["protocol"]["tuning_seeds"]
    lines = [
        "# Quantum heads on SST-2",
        "",
        f"Embeddings of all-MiniLM-L6-v2 (384 numbers), frozen; {n['pool']:,} sentences to train on, "
        f"{n['development']:,} to choose hyperparameters on (seed {seed}), {n['test']:,} to test on. "
        "Accuracy in per cent: mean and 95 % t-interval over the seeds, which draw the training sentences, "
        "the first parameters and the order; differences are paired by seed, and bold where p < 0.05 after Holm's "
        "correction over the table. The test sentences themselves add an "
        f"uncertainty of {100 * 1.96 * math.sqrt(0.16 / n['test']):.1f} points at 80 %, the same ones for all arms. "
        "They were held out of GLUE's training file, which has phrases of one sentence in many rows, so these figures "
        "are not those of GLUE's own validation sentences.",
        "",
    ]
    for part, summary in parts.items():
        budget = PARTS[part].budget
        lines += [
            f"## Training sentences: {part} (heads: {budget.n_epochs} epochs, batches of {budget.batch_size})",
            "",
            *_table(found, summary, writing),
        ]
    return lines


def _table(found: Content, summary: Summary, writing: Writing) -> list[str]:
    references = [name for name in (LOGISTIC, HEAD) if name in summary.by_name()]
    names = [one.arm for one in summary.results]
    by_name = summary.by_name()
    pairs = [(name, other) for name in names for other in references if name != other]
    gaps = summary.claims(pair for pair in pairs if any(_spread(by_name[name]) for name in pair))
    gaps |= {pair: Difference(by_name[pair[0]].mean - by_name[pair[1]].mean) for pair in pairs if pair not in gaps}
    head = [
        "arm",
        "trained",
        "hyperparameter",
        "seeds",
        "accuracy",
        *(f"minus {name}" for name in references),
        "CPU s",
    ]
    rows = [
        [
            one.arm,
            "" if one.n_trainable is None else f"{one.n_trainable:,}",
            f"{one.rate:g}",
            str(_n_runs(found, on(one.arm, summary.task))),
            writing.mean(one),
            *(writing.difference(gaps.get((one.arm, name))) for name in references),
            f"{one.seconds:.1f}",
        ]
        for one in summary.results
    ]
    return table(head, rows)


def _spread(one: Result) -> bool:
    return len(set(one.losses.values())) > 1


def _n_runs(found: Content, arm: str) -> int:
    return sum(row["arm"] == arm and row["purpose"] == "final" for row in found["runs"])


@in_style()
def _picture(parts: dict[str, Summary], writing: Writing, path: Path) -> Path:
    """Draw accuracy by part for the arms that are on all, and the screened heads beside."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    everywhere = [arm for arm in ARMS if ARMS[arm].is_everywhere]
    for i, arm in enumerate(everywhere):
        own = {part: one for part, summary in parts.items() for one in summary.results if one.arm == arm}
        places = [list(PARTS).index(part) + (i - len(everywhere) / 2) * 0.06 for part in own]
        style = {"color": COLORS[ARMS[arm].family], "marker": "os^vDPX*<>"[i], "linestyle": "none", "label": arm}
        left.errorbar(places, *_points(list(own.values()), writing), capsize=2, **style)
    left.set_xticks(range(len(PARTS)), list(PARTS))
    left.set(xlabel="sentences trained on", ylabel="test accuracy, %", title="Heads and classical classifiers")
    left.legend()
    everyone = parts[SCREEN].results if SCREEN in parts else []
    screened = [one for one in everyone if ARMS[one.arm].family != "classical"]
    means, reach = _points(screened, writing)
    right.errorbar(means, range(len(screened)), xerr=reach, fmt="o", capsize=2)
    right.set_yticks(range(len(screened)), [one.arm for one in screened])
    right.invert_yaxis()
    right.set(xlabel="test accuracy, %", title=f"Heads trained on {SCREEN} sentences")
    return save(figure, path, dpi=130)


def _points(found: list[Result], writing: Writing) -> tuple[list[float], Any]:
    return [writing.number(one.mean) for one in found], bars(found, writing)
