"""The questions that the bench is there for, answered in sentences that say what the intervals say and no more."""

from __future__ import annotations

import math

from benchmarks.quality.arms import LORA
from benchmarks.quality.summary import Difference, Result, Summary
from qpa_hf.comparison import FEWEST_SEEDS

BUDGETS = (500, 1000, 2000, 5000, 10_000, 20_000)
FAMILIES = ("QPA", "QPA, gradient")
LORA_SHARE = 0.1  # of LoRA r=4's trainable numbers


def sentences(summary: Summary) -> list[str]:
    """Return all verdicts on a task."""
    lines = [line for family in FAMILIES for line in _pareto(summary, family)]
    return lines + _circuits(summary) + _lora(summary) + _cautions(summary)


def _best(results: list[Result]) -> Result | None:
    """Choose by the development part: the test part's luck must not choose whom it then judges."""
    return min(results, key=lambda one: one.development, default=None)


def _pareto(summary: Summary, family: str) -> list[str]:
    own = [result for result in summary.results if result.family == family]
    rivals = [result for result in summary.results if result.family in ("PEFT", "base")]
    lines = []
    for budget in BUDGETS:
        ours = _best([result for result in own if result.n_trainable <= budget])
        if ours is None:
            if own:
                lines.append(f"{budget:,} numbers: no arm of {family} is that small.")
            continue
        within = [(rival, ours.minus(rival)) for rival in rivals if rival.n_trainable <= budget]
        smaller = [(rival, gap) for rival, gap in within if rival.n_trainable <= ours.n_trainable]
        start = f"{budget:,} numbers: {_name(ours)}"
        if not _is_decided(within):
            lines.append(f"{start} has too few seeds, or too few rivals, to be judged.")
            continue
        better = [rival for rival, gap in smaller if gap.is_above]
        if better:
            lines.append(f"{start} is not on the Pareto front: better with as few numbers: {_names(better, ours)}.")
        else:
            larger = [rival for rival, gap in within if gap.is_above]
            rest = f"; better within the budget: {_names(larger, ours)}" if larger else ""
            lines.append(
                f"{start} is on the Pareto front: no rival with as few numbers is better beyond chance{rest}."
            )
    return lines


def _is_decided(found: list[tuple[Result, Difference]]) -> bool:
    return bool(found) and all(gap.interval is not None or math.isnan(gap.mean) for _, gap in found)


def _circuits(summary: Summary) -> list[str]:
    known = summary.by_name()
    lines = []
    for control in summary.results:
        if control.control_of not in known:
            continue
        ours = known[control.control_of]
        gap = ours.minus(control)
        if gap.interval is None:
            lines.append(f"Circuits: {_name(ours)} against {_name(control)} is undecided: {_undecided(gap)}.")
            continue
        if gap.is_below:
            verdict = "the circuits contribute"
        elif gap.is_above:
            verdict = "the circuits cost quality"
        else:
            verdict = "no contribution of the circuits is shown"
        lines.append(f"Circuits: {_name(ours)} minus {_name(control)} is {_gap(gap)}: {verdict}.")
    return lines


def _lora(summary: Summary) -> list[str]:
    known = summary.by_name()
    if LORA not in known:
        return []
    lora, lines = known[LORA], []
    for family in (*FAMILIES, "direct", "control", "PEFT"):
        most = LORA_SHARE * lora.n_trainable
        ours = _best([result for result in summary.results if result.family == family and result.n_trainable <= most])
        if ours is None:
            continue
        gap, share = ours.minus(lora), ours.n_trainable / lora.n_trainable
        start = f"{LORA} at {share:.1%} of its numbers ({family}): {_name(ours)}"
        if gap.interval is None:
            lines.append(f"{start} is undecided: {_undecided(gap)}.")
            continue
        verdict = "worse" if gap.is_above else "better" if gap.is_below else "the same within the interval"
        lines.append(f"{start} is {verdict}; the difference is {_gap(gap)}.")
    return lines


def _cautions(summary: Summary) -> list[str]:
    lines = [
        f"{result.arm} is best at {result.rate:g}, an end of the rates tried: it may do better beyond."
        for result in summary.results
        if result.is_at_edge
    ]
    for result in summary.results:
        n_diverged = sum(math.isinf(loss) for loss in result.losses.values())
        if n_diverged:
            lines.append(f"{result.arm} diverged in {n_diverged} of {len(result.losses)} runs.")
    return lines


def _name(result: Result) -> str:
    return f"{result.arm} ({result.n_trainable:,})"


def _names(rivals: list[Result], ours: Result) -> str:
    ordered = sorted(rivals, key=lambda rival: rival.mean)
    return ", ".join(f"{_name(rival)} by {ours.minus(rival).mean:.4f}" for rival in ordered)


def _undecided(gap: Difference) -> str:
    return "a run diverged" if math.isnan(gap.mean) else f"fewer than {FEWEST_SEEDS} seeds"


def _gap(gap: Difference) -> str:
    assert gap.interval is not None
    low, high = gap.interval
    return f"{gap.mean:+.4f} nats (95 % interval {low:+.4f} to {high:+.4f})"
