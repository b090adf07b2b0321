"""The record of a benchmark (where and on what it ran, its rows, its targets), and the command line of speed ones."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measure import SEED

RESULTS = Path("benchmarks/results")
PACKAGES = (
    "torch", "triton", "numba", "numpy", "scipy", "transformers", "peft", "torchquantum", "pennylane",
    "pennylane_lightning", "qiskit", "qiskit-aer", "qiskit-ibm-runtime", "qpa-hf",
)  # fmt: skip
WIDTH = 150  # of the tables, in characters, where the terminal is narrower


class Target(NamedTuple):
    """A figure to reach.

    Args:
        what: what is measured.
        sign: ">=" or "<=".
        bound: the figure.
        measured: the worst of those measured for it, None if none was.
        where: at which size it was the worst, or why there is none.
        unit: of both numbers.
    """

    what: str
    sign: str
    bound: float
    measured: float | None
    where: str
    unit: str = "x"

    @property
    def is_met(self) -> bool | None:
        """Whether the measured figure reaches the bound; None if nothing was measured."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.sign == ">=" else self.measured <= self.bound


def worst(what: str, sign: str, bound: float, measured: dict[str, float], unit: str = "x") -> Target:
    """Return a target judged by the worst of several measurements, given by where they were taken."""
    if not measured:
        return Target(what, sign, bound, None, "not measured", unit)
    where = (min if sign == ">=" else max)(measured, key=lambda key: measured[key])
    return Target(what, sign, bound, measured[where], where, unit)


def arguments(description: str, name: str, minutes: str, rounds: int) -> argparse.ArgumentParser:
    """Return the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=f"{description} Takes about {minutes} minutes on one core."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds, to see that it runs; its times say little"
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds of each comparison ({rounds})")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / f"{name}.json", help="JSON file; the plot lies beside it as .png"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where torch computes")
    return parser


def prepare(options: argparse.Namespace) -> None:
    """Use one thread, and refuse before anything is measured what cannot be written or computed."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("`--device cuda` needs a GPU that torch can use, and there is none. Use `--device cpu`.")
    if options.rounds < 1:
        raise SystemExit(f"`--rounds` {options.rounds} is not allowed. Set it to at least 1.")
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("The plot needs matplotlib. Install it with `pip install 'qpa-hf[plots]'`.")
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    found = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", check=False, cwd=Path(__file__).parent
    )
    return found.stdout.strip()


def commit() -> str:
    """Return the checked-out commit, marked where the code that ran is not the one committed."""
    is_changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results")
    return (_git("rev-parse", "HEAD") or "unknown") + ("-dirty" if is_changed else "")


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def machine(device: str) -> dict[str, Any]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    machine = {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": round(memory / 2**30, 1)}
    return machine | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def with_place(row: dict[str, Any], environments: list[Any]) -> dict[str, Any]:
    """Return a row with the place of its environment in a list of all, to which a new one is added."""
    if row["environment"] not in environments:
        environments.append(row["environment"])
    return {**row, "environment": environments.index(row["environment"])}


def write(
    options: argparse.Namespace,
    config: dict[str, Any],
    missing: dict[str, str],
    measured: dict[str, Any],
    targets: Sequence[Target],
) -> None:
    """Write everything that was measured, and on what, as JSON."""
    result = {
        "config": {"quick": options.quick, "rounds": options.rounds, "device": options.device, **config},
        "seed": SEED,
        "threads": torch.get_num_threads(),
        "machine": machine(options.device),
        "versions": versions(),
        "commit": commit(),
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "missing": missing,
        **measured,
        "targets": [target._asdict() | {"is_met": target.is_met} for target in targets],
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def show(tables: Sequence[Table], targets: Sequence[Target], missing: dict[str, str], output: Path) -> None:
    """Print the tables, the figures to reach, and what could not be compared."""
    console = Console()
    console = Console(width=max(console.width, WIDTH))
    for table in tables:
        console.print(table)
    summary = Table("what", "to reach", "measured", "worst at", "reached", title="Figures to reach")
    for target in targets:
        measured = "-" if target.measured is None else f"{target.measured:.4g} {target.unit}"
        reached = {True: "yes", False: "[bold red]no[/]", None: "-"}[target.is_met]
        summary.add_row(target.what, f"{target.sign} {target.bound:g} {target.unit}", measured, target.where, reached)
    console.print(summary)
    for name, why in missing.items():
        console.print(f"Not compared: {name}: {why}")
    console.print(f"Written: {output}, {output.with_suffix('.png')}")
