"""All runs of a task in one file, written after each run: what it has is never run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.quality import merged
from benchmarks.quantum_train.arms import Arm, Plan
from benchmarks.quantum_train.fitting import Row
from benchmarks.quantum_train.task import Part, Task, settings_of
from qpa_hf.checkpoint import write_text

KEY = ("arm", "part", "rate", "seed")


class Results:
    """The runs of a task, in memory and in their file.

    Args:
        path: JSON file; runs of other arms stay in it.
        task: whose runs.
        protocol: how rates are chosen, and what else all runs share.

    Raises:
        FileExistsError: if the file has results of other settings.
    """

    def __init__(self, path: Path, task: Task, protocol: dict[str, Any]) -> None:
        self.path = path
        merged.check(path, settings_of(task), protocol)
        if path.is_file():
            self.content = merged.read(path)
            return
        self.content = {
            "task": task.name,
            "network": task.network,
            "measure": {"name": task.measure, "unit": task.unit, "is_higher_better": task.is_higher_better},
            "settings": settings_of(task),
            "protocol": protocol,
            "references": task.references(),
            "environments": [],
            "arms": {},
            "runs": [],
        }

    def find(self, name: str, part: Part, rate: float, seed: int) -> Row | None:
        """Return a run that was done, None if it was not."""
        key = (name, part, rate, seed)
        return next((row for row in self.content["runs"] if tuple(row[k] for k in KEY) == key), None)

    def expect(self, name: str, arm: Arm, plan: Plan) -> None:
        """Make room for an arm's runs; those of an arm that meant something else are forgotten."""
        about = {"family": arm.family, "control_of": arm.control_of, **plan._asdict()}
        if self.content["arms"].get(name) != about:
            self.content["arms"][name] = about
            self.content["runs"] = [row for row in self.content["runs"] if row["arm"] != name]

    def add(self, name: str, row: Row) -> Row:
        """Keep a run, and write all that there are."""
        kept = {"arm": name, **record.with_place(row, self.content["environments"])}
        self.content["runs"].append(kept)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, merged.lines(self.content) + "\n")
        return kept
