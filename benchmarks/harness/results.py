"""All runs of a task in one file, which is what is kept: from it alone the report is made, and no run done again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.harness import runs
from benchmarks.harness.study import Row, Study
from qpa_hf.checkpoint import write_text

Content = dict[str, Any]


def read(path: Path) -> Content:
    """Return a file's content.

    Raises:
        FileNotFoundError: if the task has not been run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. Run the task first, without --report-only.")
    return json.loads(path.read_text(encoding="utf-8"))


def check(path: Path, settings: dict[str, Any], protocol: dict[str, Any]) -> None:
    """Raise if a file holds results that do not compare with those about to be added.

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
    """Write the runs of a task's file as files of their own, where there are none."""
    if not path.is_file():
        return
    known = read(path)
    for row in known["runs"]:
        own = runs.path_of(folder, *(row[name] for name in runs.KEY))
        if not own.is_file():
            runs.write(own, row | {"environment": known["environments"][row["environment"]]})


def write(path: Path, study: Study, protocol: dict[str, Any], rows: dict[str, list[Row]]) -> Content:
    """Merge rows, by arm, with those of other arms that the file has (see `check`), and write it."""
    old = read(path) if path.is_file() else {}
    arms: dict[str, Any] = {name: arm for name, arm in old.get("arms", {}).items() if name not in rows}
    environments: list[Any] = old.get("environments", [])
    kept = [row for row in old.get("runs", []) if row["arm"] in arms]
    for name, own in rows.items():
        arm = study.arms[name]
        arms[name] = {"family": arm.family, "control_of": arm.control_of}
        failed = next((row["failed"] for row in own if "failed" in row), None)
        if failed is not None:
            arms[name]["failed"] = failed
            continue
        arms[name] |= study.about(name)
        kept += [record.with_place(row, environments) for row in own]
    found = {
        "task": study.name,
        "settings": study.settings,
        "protocol": protocol,
        "measure": asdict(study.measure),
        **study.head(),
        "environments": environments,
        "arms": {name: arms[name] for name in study.arms if name in arms},
        "runs": kept,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, lines(found) + "\n")
    return json.loads(json.dumps(found))


def lines(found: Content) -> str:
    """JSON with a line for each arm and each run, so that a difference between two versions can be read."""
    parts = []
    for key, value in found.items():
        if key in ("runs", "rows"):
            text = "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
        elif key == "arms":
            text = "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n }"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}"
