"""Try the clients that are still to be tried: `python -m benchmarks.clients`. All of them take about half an hour."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.clients.rows import CLIENTS, Client
from benchmarks.clients.table import Table, failures, listed
from benchmarks.versions import checks, environment
from benchmarks.versions.table import commit


def options() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clients", description=__doc__)
    parser.add_argument("--only", action="append", metavar="CLIENT", help="only this one; repeat for several")
    parser.add_argument("--fresh", action="store_true", help="also what was tried on this commit before")
    parser.add_argument("--folder", type=Path, help="where environments stand; outside of the checkout")
    return parser.parse_args()


def tried(client: Client, folder: Path) -> dict[str, Any]:
    """Try a client in an environment of its own, and return what came of it."""
    found: dict[str, Any] = {"client": client.name, "commit": commit(), "cases": {}}
    try:
        with environment.made(client.row, sys.executable, folder) as interpreter:
            if client.without:
                environment.uv("pip", "uninstall", "--python", str(interpreter), *client.without)
            found["versions"] = environment.versions(interpreter, listed(client.packages))
            answers = folder / "answers.json"
            answers.unlink(missing_ok=True)
            asked = ["-m", "benchmarks.clients.attempt", client.module, str(answers)]
            code, printed, seconds = checks.run_python(interpreter, asked)
            found["seconds"] = round(seconds)
            if answers.is_file():
                found["cases"] = json.loads(answers.read_text(encoding="utf-8"))
            if code:
                found["printed"] = [checks.told(line) for line in printed.strip().splitlines()[-checks.LINES :]]
    except environment.Unresolved as error:
        found["unresolved"] = checks.told(str(error).splitlines()[-1].strip())
    return found


def main() -> None:
    """Try the clients and write the table; the exit code is 1 if anything of ours failed that works with LoRA."""
    asked, names = options(), tuple(client.name for client in CLIENTS)
    if unknown := set(asked.only or ()) - set(names):
        sys.exit(f"There is no client {sorted(unknown)}. Choose from {list(names)}.")
    table, wrong = Table(), []
    with tempfile.TemporaryDirectory(prefix="qpa_clients_") as place:
        for client in CLIENTS:
            is_done = not asked.fresh and table.has(client.name, commit=commit())
            if client.name not in (asked.only or names) or is_done:
                continue
            print(client.name, flush=True)
            found = tried(client, asked.folder or Path(place))
            table.add(found)
            wrong += failures(found)
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
