"""The record of the study as JSON, and its table as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.faults.verdict import MEGABYTES, SECONDS
from benchmarks.harness.report import table
from benchmarks.record import Target
from qpa_hf.checkpoint import write_text

HEAD = """# Bad inputs, interruptions, hostile conditions

Written by `python -m benchmarks.faults` (commit {commit}, seed {seed}; {versions}).

A bad input may end in one of the documented exceptions with one sentence (commands: exit code 2, or 1 for what failed
on the way), within {seconds} seconds and {megabytes} MB, with nothing written and no service touched. After an
interruption the same command must end as the undisturbed one: the same files with the same bits, nothing left behind,
nothing lost on the way, nothing paid twice.
"""


def write(output: Path, config: dict[str, Any], commit: str, rows: list[dict[str, Any]]) -> bool:
    """Write everything that was found, and return whether nothing was wrong.

    Args:
        output: JSON file; the table lies beside it.
        config: what was asked for.
        commit: of the code that ran.
        rows: what was found, with the part it belongs to.
    """
    parts = {part: [row for row in rows if row["part"] == part] for part in ("inputs", "interruptions", "conditions")}
    targets = _targets(parts)
    result = {
        "config": config,
        "seed": config["seed"],
        "machine": record.machine("cpu"),
        "versions": record.versions(),
        "commit": commit,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        **parts,
        "targets": [target._asdict() | {"is_met": target.is_met} for target in targets],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(result, indent=1) + "\n")
    write_text(output.with_suffix(".md"), _markdown(result, targets))
    for target in targets:
        print(f"{target.what}: {target.measured:g} ({target.sign} {target.bound:g}) {target.where}")
    print(f"Written: {output}, {output.with_suffix('.md')}")
    return all(not row["wrong"] for row in rows)


def _targets(parts: dict[str, list[dict[str, Any]]]) -> list[Target]:
    inputs = [one["wrong"] for row in parts["inputs"] for one in row["wrong"]]
    broken = [wrong for row in (*parts["interruptions"], *parts["conditions"]) for wrong in row["wrong"]]
    n_inputs = sum(row["count"] for row in parts["inputs"])
    counts = {
        "bad inputs that end badly": len(inputs),
        "side effects of bad inputs": sum("touches" in wrong or "writes" in wrong for wrong in inputs),
        "interruptions that lose or change something": sum(bool(row["wrong"]) for row in parts["interruptions"]),
        "paid or committed twice": sum("done " in wrong for wrong in broken),
        "conditions that break something": sum(bool(row["wrong"]) for row in parts["conditions"]),
    }
    asked = [("bad inputs", n_inputs, 5000), ("interruptions", len(parts["interruptions"]), 300)]
    return [Target(what, ">=", bound, n, "", "") for what, n, bound in asked] + [
        Target(what, "<=", 0, n, "", "") for what, n in counts.items()
    ]


def _markdown(result: dict[str, Any], targets: list[Target]) -> str:
    versions = ", ".join(f"{name} {found}" for name, found in result["versions"].items())
    lines = [HEAD.format(**result | {"versions": versions, "seconds": SECONDS, "megabytes": MEGABYTES})]
    lines += table(
        ["what", "to reach", "found"], [[t.what, f"{t.sign} {t.bound:g}", f"{t.measured:g}"] for t in targets]
    )
    lines += _interruptions(result["interruptions"])
    lines += table(["condition", "wrong"], [[row["name"], _cell(row["wrong"])] for row in result["conditions"]])
    wrong = [one for row in result["inputs"] for one in row["wrong"]]
    lines += table(["bad input", "wrong"], [[_cell([one["label"]]), _cell([one["wrong"]])] for one in wrong])
    return "\n".join(lines)


def _interruptions(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(row["scene"] for row in rows))
    signals = sorted({row["signal"] for row in rows})
    cells = []
    for name in names:
        of_scene = [row for row in rows if row["scene"] == name]
        n = Counter(row["signal"] for row in of_scene)
        bad = [f"{row['signal']} at {row['at']}: {'; '.join(row['wrong'])}" for row in of_scene if row["wrong"]]
        cells.append([name, *(str(n[signal]) for signal in signals), str(len(bad)), _cell(bad[:3])])
    return table(["command", *signals, "wrong", "which, for example"], cells)


def _cell(texts: list[str]) -> str:
    """Return texts as one cell; what they quote may be anything."""
    return "; ".join(texts).encode("unicode_escape").decode().replace("|", "\\|").replace("<", "&lt;")[:400]
