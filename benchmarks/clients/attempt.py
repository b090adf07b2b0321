"""Run in a client's environment: try every case with every arm, and write what came of each at once.

python -m benchmarks.clients.attempt trl out.json [CASE ...]
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.clients.arms import ARMS, Arm
from benchmarks.versions.checks import told


def attempt(case: Any, arm: Arm) -> dict[str, Any]:
    """Return a case's figures, or how it failed."""
    start = time.monotonic()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="qpa_client_") as folder:
        try:
            found: dict[str, Any] = {"figures": [figure._asdict() for figure in case(arm, Path(folder))]}
        except Exception as error:
            traceback.print_exc()
            lines = f"{type(error).__name__}: {error}".replace(folder, "...").strip().splitlines()
            found = {"error": told(lines[0])}
    return found | {"seconds": round(time.monotonic() - start, 1)}


def main(module: str, output: str, *names: str) -> None:
    """Try the cases of a module of `tried`."""
    cases = importlib.import_module(f"benchmarks.clients.tried.{module}").CASES
    found: dict[str, dict[str, Any]] = {}
    for name in names or cases:
        for arm in ARMS:
            found.setdefault(name, {})[arm.name] = attempt(cases[name], arm)
            print(name, arm.name, found[name][arm.name], flush=True)
            Path(output).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
