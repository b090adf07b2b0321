"""Run the rows that are still to be run: `python -m benchmarks.versions`. All of them take a night."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.versions import checks, environment
from benchmarks.versions.rows import QUICK_ROWS, ROWS, Row
from benchmarks.versions.table import Table, commit, failures


def options() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__)
    parser.add_argument("--only", action="append", metavar="SET", help="only this set; repeat for several")
    parser.add_argument(
        "--python", action="append", type=int, metavar="MINOR", help="only this Python, as 12 for 3.12"
    )
    parser.add_argument("--fresh", action="store_true", help="also what was run on this commit before")
    parser.add_argument("--quick", action="store_true", help="both ends but torch's, in short; writes no table")
    parser.add_argument("--folder", type=Path, help="where environments stand; outside of the checkout")
    return parser.parse_args()


def run(row: Row, minor: int, python: str, folder: Path, is_quick: bool) -> dict:
    """Run a row on one Python and return what came of it."""
    found = {"set": row.name, "python": minor, "pins": list(row.pins), "commit": commit()}
    try:
        with environment.made(row, python, folder) as interpreter:
            found["versions"] = environment.versions(interpreter)
            found["results"] = checks.run(interpreter, folder, is_quick)
    except environment.Unresolved as error:
        found["unresolved"] = checks.told(str(error).splitlines()[-1].strip())
    return found


def main() -> None:
    """Run the rows and write the table; the exit code is 1 if anything failed."""
    asked = options()
    rows = QUICK_ROWS if asked.quick else ROWS
    if unknown := set(asked.only or ()) - {row.name for row in rows}:
        sys.exit(f"There is no set {sorted(unknown)}. Choose from {[row.name for row in rows]}.")
    table, pythons, wrong, torch = Table(), environment.pythons(), [], None
    with tempfile.TemporaryDirectory(prefix="qpa_versions_") as place:
        for row in rows:
            for minor, python in pythons.items():
                is_asked = row.name in (asked.only or [row.name]) and minor in (asked.python or [minor])
                if not is_asked or minor not in (row.pythons or [minor]):
                    continue
                if not (asked.fresh or asked.quick) and table.has(row.name, minor, commit=commit()):
                    continue
                if torch not in (None, row.torch):
                    environment.drop_torch()
                torch = row.torch
                print(f"{row.name}, Python 3.{minor}", flush=True)
                found = run(row, minor, python, asked.folder or Path(place), asked.quick)
                if not asked.quick:
                    table.add(found)
                wrong += failures(found)
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
