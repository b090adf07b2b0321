"""All runs of a task in one file, which is what is kept: from it alone the report is made, and no run done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.quality import runs
from benchmarks.quality.arms import ARMS
from benchmarks.quality.rivals import WITHOUT_ARM
from benchmarks.quality.runs import KEY, Row
from benchmarks.quality.task import Task
from qpa_hf.checkpoint import write_text

Merged = dict[str, Any]


def read(path: Path) -> Merged:
    """Return a merged file's content.

    Raises:
        FileNotFoundError: if the task has not been run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. Run the task first: `python -m benchmarks.quality --task ...`.")
    return json.loads(path.read_text(encoding="utf-8"))


def check(path: Path, settings: dict[str, Any], protocol: dict[str, Any]) -> None:
    """Raise if a merged file holds results that do not compare with those about to be added.

    Raises:
        FileExistsError: naming what differs.
    """
    if not path.is_file():
        return
    old, new = read(path), json.loads(json.dumps({"settings": settings, "protocol": protocol}))
    for name, values in new.items():
        differing = [key for key in {**old[name], **values} if old[name].get(key) != values.get(key)]
        if differing:
            raise FileExistsError(
                f"{path} has results with other {name} ({', '.join(differing)}), which do not compare. Choose another "
                "--output, or remove the file."
            )


def restore(path: Path, folder: Path) -> None:
    """Write the runs of a merged file as files of their own, where there are none."""
    if not path.is_file():
        return
    known = read(path)
    for row in known["runs"]:
        own = runs.path_of(folder, *(row[name] for name in KEY))
        if not own.is_file():
            runs.write(own, row | {"environment": known["environments"][row["environment"]]})


def write(path: Path, task: Task, protocol: dict[str, Any], rows: dict[str, list[Row]]) -> Merged:
    """Merge rows, by arm, with those of other arms that the file has (see `check`), and write it."""
    old = read(path) if path.is_file() else {}
    arms: dict[str, Any] = {name: arm for name, arm in old.get("arms", {}).items() if name not in rows}
    environments: list[Any] = old.get("environments", [])
    kept = [row for row in old.get("runs", []) if row["arm"] in arms]
    for arm, own in rows.items():
        failed = next((row["failed"] for row in own if "failed" in row), None)
        before = old.get("arms", {}).get(arm, {}).get("config")  # restored runs have none of their own
        config = next((row["config"] for row in own if "config" in row), before)
        arms[arm] = {"family": ARMS[arm].family, "control_of": ARMS[arm].control_of, "config": config}
        if failed is not None:
            arms[arm]["failed"] = failed
            continue
        for row in own:
            kept.append(record.with_place(row, environments))
    found = {
        "task": task.name,
        "settings": task.settings,
        "protocol": protocol,
        "without_arm": WITHOUT_ARM,
        "environments": environments,
        "arms": {name: arms[name] for name in ARMS if name in arms},
        "runs": [{key: value for key, value in row.items() if key != "config"} for row in kept],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, lines(found) + "\n")
    return json.loads(json.dumps(found))


def lines(found: Merged) -> str:
    """JSON with a line for each arm and each run, so that a difference between two versions can be read."""
    parts = []
    for key, value in found.items():
        if key == "runs":
            text = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
        elif key == "arms":
            text = "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n }"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"
