"""The questions that the bench is there for, answered in sentences that say what the intervals say and no more."""

from __future__ import annotations

import math

from benchmarks.harness.report import Writing
from benchmarks.harness.summary import Pair, Result, Summary
from benchmarks.quality.arms import LORA
from benchmarks.quality.study import CROSS_ENTROPY
from qpa_hf.comparison.statistics import FEWEST_SEEDS, Difference

BUDGETS = (500, 1000, 2000, 5000, 10_000, 20_000)
FAMILIES = ("QPA", "QPA, gradient")
LORA_SHARE = 0.1  # of LoRA r=4's trained parameters
MOST_NAMED = 3  # of the arms that are ahead
WRITING = Writing(CROSS_ENTROPY)


def sentences(summary: Summary) -> list[str]:
    """Return all verdicts on a task."""
    lines = [line for family in FAMILIES for line in _pareto(summary, family)]
    claims = summary.claims([*summary.answers(), *_small(summary)])
    return lines + [_claim(summary, pair, gap) for pair, gap in claims.items()] + _cautions(summary)


def _best(results: list[Result]) -> Result | None:
    """Choose by the development part: the test part's luck must not choose whom it then judges."""
    return min(results, key=lambda one: one.development, default=None)


def _pareto(summary: Summary, family: str) -> list[str]:
    """Say at each budget who is ahead, by the mean alone.

    A front is a claim that nobody is better. A test that finds no difference does not show it, and the more rivals
    there are to correct for, the less it finds.
    """
    own = [result for result in summary.results if result.family == family]
    rivals = [result for result in summary.results if result.family in ("PEFT", "base")]
    lines = []
    for budget in BUDGETS if own and rivals else ():
        ours = _best([result for result in own if result.n_trainable <= budget])
        if ours is None:
            lines.append(f"{budget:,} parameters: no arm of {family} is that small.")
            continue
        ahead = [rival for rival in rivals if rival.n_trainable <= budget and rival.mean < ours.mean]
        smaller = [rival for rival in ahead if rival.n_trainable <= ours.n_trainable]
        larger = [rival for rival in ahead if rival.n_trainable > ours.n_trainable]
        verdict = "is not on the Pareto front" if smaller else "is on the Pareto front"
        rest = f"; lower with as few: {_names(smaller, ours)}" if smaller else ""
        rest += f"; lower within the budget: {_names(larger, ours)}" if larger else ""
        lines.append(f"{budget:,} parameters: {_name(ours)} {verdict}{rest}.")
    return lines


def _small(summary: Summary) -> list[Pair]:
    """Return each family's best arm of a tenth of LoRA's size at most, and LoRA."""
    known = summary.by_name()
    if LORA not in known:
        return []
    most = LORA_SHARE * known[LORA].n_trainable
    families = (*FAMILIES, "direct", "control", "PEFT")
    found = (_best([r for r in summary.results if r.family == one and r.n_trainable <= most]) for one in families)
    return [(ours.arm, LORA) for ours in found if ours is not None]


def _claim(summary: Summary, pair: Pair, gap: Difference) -> str:
    ours, other = (summary.by_name()[arm] for arm in pair)
    start = f"{_name(ours)} minus {_name(other)}"
    if other.arm == LORA:
        start += f", {ours.n_trainable / other.n_trainable:.1%} of its size"
        below, above, neither = "better", "worse", "no difference is shown"
    else:
        below, above = "the circuits contribute", "the circuits cost quality"
        neither = "no contribution of the circuits is shown"
    if gap.interval is None:
        why = "a run diverged" if math.isnan(gap.mean) else f"fewer than {FEWEST_SEEDS} seeds"
        return f"{start} is undecided: {why}."
    verdict = below if gap.is_below else above if gap.is_above else neither
    return f"{start}: {WRITING.claim(gap)}: {verdict}."


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
    named = ", ".join(f"{_name(rival)} by {ours.mean - rival.mean:.4f}" for rival in ordered[:MOST_NAMED])
    return named + (f" and {len(ordered) - MOST_NAMED} more" if len(ordered) > MOST_NAMED else "")
