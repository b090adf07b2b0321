"""The table of faults and what came of each, on both paths, as JSON and as text."""

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("huggingface_hub", "hf-xet", "httpx2", "peft", "qpa-hf")
COMMAND = "python -m pytest tests/hub --fault-table benchmarks/results/hub_faults.json"
NOTES = """
"lfs" is the path of plain HTTP uploads and downloads, "xet" that of chunks. What does not succeed raises an error of
`qpa_hf.hub` of the name given, which says what to do. Each fault was seen to happen. A row with one path has no
counterpart on the other, or one that ends differently: on the LFS path, a finished upload is found at the next attempt
and not asked for again; hf_xet notices a damaged chunk by itself, and says only that the download failed.
"""
COLUMNS = ("call", "step", "fault", "outcome", "state", "rerun")
HEADINGS = ("call", "where", "fault", "what the call does", "what is there then", "the same call again")


class FaultTable:
    """Rows gathered from tests that passed."""

    def __init__(self):
        self.rows = []

    def add(self, path, **row):
        """Add what one test saw on one path."""
        self.rows.append({"path": path} | row)

    def merged(self):
        """Return one row for both paths where they agree; each row says on which paths it holds."""
        paths = {}
        for row in self.rows:
            paths.setdefault(tuple(row[column] for column in COLUMNS), []).append(row["path"])
        return [dict(zip(COLUMNS, key, strict=True), paths=sorted(found)) for key, found in paths.items()]

    def write(self, path):
        """Write the table to a JSON file and, with the suffix `.md`, as text."""
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
        about = {"command": COMMAND, "commit": commit, "versions": {name: version(name) for name in PACKAGES}}
        rows = self._in_order(self.merged())
        Path(path).write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
        Path(path).with_suffix(".md").write_text(self._text(about, rows))

    def _in_order(self, rows):
        calls, steps = ([row[column] for row in rows] for column in ("call", "step"))
        return sorted(rows, key=lambda row: (calls.index(row["call"]), steps.index(row["step"])))

    def _text(self, about, rows):
        heading = ["# Faults on the way to the Hub", ""]
        heading += ["Written by a run of the tests, over HTTP, with the genuine client and a Hub on the same machine:"]
        heading += [f"`{about['command']}`", f"(commit {about['commit']};"]
        heading += [", ".join(f"{name} {number}" for name, number in about["versions"].items()) + ").", NOTES]
        lines = [[*(row[column] for column in COLUMNS), " and ".join(row["paths"])] for row in rows]
        table = [[*HEADINGS, "path"], ["---"] * (len(HEADINGS) + 1), *lines]
        return "\n".join([*heading, *("| " + " | ".join(line) + " |" for line in table)]) + "\n"
