"""Tables of the estimators' bias and spread and of the gradients' variance, and how they stand to the paper."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from benchmarks.harness.report import table
from benchmarks.harness.study import Row
from benchmarks.noise.gradients import AUTHORS, GENERATORS, PRINTED, QUANTITIES
from qpa_hf.comparison.statistics import mean_interval

TABLE_DEPTHS = (1, 8, 32)
PAPER_WIDTHS, PAPER_DEPTH = range(5, 11), 8


def estimators(task: str, rows: list[Row]) -> list[str]:
    """Bias, spread and error of one gradient, by estimator and shots."""
    groups: dict[tuple[str | None, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["shots"], row["gradient"], row["circuits"]].append(row)
    cells = [
        [shots or "exact", gradient, f"{circuits:,}", *(_share(found, name) for name in ("bias", "resolution"))]
        + [_share(found, "spread"), _share(found, "error"), f"{np.mean([row['cosine'] for row in found]):.3f}"]
        for (shots, gradient, circuits), found in groups.items()
    ]
    head = ["shots", "estimator", "circuits", "bias", "resolution", "spread", "error", "cosine"]
    n_draws, n_qubits = rows[0]["n_draws"], rows[0]["n_qubits"]
    return [
        f"### {task}: estimated gradients",
        "",
        f"N = {n_qubits}, angles of adapters that were trained exactly, {n_draws} draws each; the loss is linear in "
        "the generated vector, with the task's own gradient. All but the cosine are shares of the exact gradient's "
        "length: the mean over the adapters and its 95 % interval. A bias below the resolution is not told from none; "
        "error is that of one estimate, bias and spread together.",
        "",
        *table(head, cells),
    ]


def _share(rows: list[Row], name: str) -> str:
    values = [row[name] for row in rows]
    interval = mean_interval(values) if max(values) > 0 else None
    mean = f"{np.mean(values):.2g}"
    return f"{mean} ({interval[0]:.2g} to {interval[1]:.2g})" if interval and name in ("bias", "error") else mean


def gradients(rows: list[Row]) -> list[str]:
    """Fig. 10: the variance of the angles' gradient against qubits and depth."""
    lines = [
        "## Variance of the angles' gradient (Fig. 10)",
        "",
        "Random angles, no training. In brackets what a deep circuit tends to: for a value of a random real state of "
        "d = 2^N components (R_Y + CNOT), or of a random complex one, half the value's own variance, since by "
        "parameter shift a slope is half the difference of two values that are as good as independent. Z: 1 / (d + "
        "2), complex 1 / (2 (d + 1)); a probability: (d - 1) / (d^2 (d + 2)), complex (d - 1) / (2 d^2 (d + 1)). The "
        "generators are the paper's, 204,100 values, with a random loss whose gradient has length 1.",
        "",
    ]
    names = [name for name in (*QUANTITIES, *GENERATORS) if any(row["quantity"] == name for row in rows)]
    widths = sorted({row["n_qubits"] for row in rows})
    for ansatz in dict.fromkeys(row["ansatz"] for row in rows):
        of = {(r["quantity"], r["n_qubits"], r["depth"]): r for r in rows if r["ansatz"] == ansatz}
        depths = [depth for depth in TABLE_DEPTHS if any(key[2] == depth for key in of)]
        cells = [
            [name, str(d), *(_variance(of[name, n, d], d == depths[-1]) for n in widths)]
            for name in names
            for d in depths
        ]
        lines += [f"### {ansatz}", "", *table(["quantity", "L", *(f"N = {n}" for n in widths)], cells)]
    return lines + _trends(rows, names)


def _variance(row: Row, with_plateau: bool) -> str:
    known = f" [{row['plateau']:.2g}]" if with_plateau and row["plateau"] is not None else ""
    return f"{row['variance']:.2g}{known}"


def _trends(rows: list[Row], names: list[str]) -> list[str]:
    """Say by what factor the variance changes for each qubit, and each doubling of the depth."""
    factors = {}
    for name in names:
        for ansatz in dict.fromkeys(row["ansatz"] for row in rows):
            own = [row for row in rows if row["quantity"] == name and row["ansatz"] == ansatz]
            by_width = [r for r in own if r["depth"] == PAPER_DEPTH and r["n_qubits"] in PAPER_WIDTHS]
            by_depth = [r for r in own if r["n_qubits"] == PAPER_WIDTHS[-1]]
            per_qubit = _factor([r["n_qubits"] for r in by_width], by_width)
            factors[name, ansatz] = (per_qubit, _factor([math.log2(r["depth"]) for r in by_depth], by_depth))
    return [
        "### Trends",
        "",
        f"Factor of the variance for one qubit more (N = 5 to 10, L = {PAPER_DEPTH}), and for twice the depth "
        "(N = 10), by least squares on its logarithm; in brackets one standard error to each side.",
        "",
        *table(
            ["quantity", "ansatz", "one qubit more", "twice the depth"], [[*key, *factors[key]] for key in factors]
        ),
        *_against_paper(factors),
    ]


def _against_paper(factors: dict[tuple[str, str], tuple[str, str]]) -> list[str]:
    per_qubit, per_doubling = factors.get((AUTHORS, "ry_cnot"), ("", ""))
    printed, _ = factors.get((PRINTED, "ry_cnot"), ("", ""))
    if not per_qubit or not printed:
        return []
    return [
        f"The paper: no significant fall with N. Here: a factor of {per_qubit} for each qubit, with features as in "
        "the published code, whose slope is infinite at p = 0, so that few circuits decide the variance.",
        "",
        "The paper gives the mapping model as the reason. It is rather the scale of the features: the published code "
        f"and the default take 2^N p. With p itself, as Eq. 6 is printed, the same generator's factor is {printed}, "
        "and a probability's own gradient falls as 4^-N.",
        "",
        f"The paper: a slight fall with L. Here: a factor of {per_doubling} for each doubling from L = 1 to 32.",
        "",
    ]


def _factor(x: list[float], rows: list[Row]) -> str:
    if len(rows) < 4:
        return ""
    (slope, _), covariance = np.polyfit(x, [math.log(row["variance"]) for row in rows], 1, cov=True)
    error = math.sqrt(covariance[0, 0])
    return f"{math.exp(slope):.2f} ({math.exp(slope - error):.2f} to {math.exp(slope + error):.2f})"
