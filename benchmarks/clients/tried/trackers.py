"""What trackers keep of a run: Trainer's losses and, with QPA, the circuits' state, read back from each store."""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.clients import tiny
from benchmarks.clients.arms import Arm
from benchmarks.clients.figures import Figure, difference, expect
from benchmarks.clients.tried.transformers import trainer
from qpa_hf import QPAConfig
from qpa_hf.trainer_callbacks import CircuitMetricsCallback

Values = dict[str, float]
PLACE = tempfile.TemporaryDirectory(prefix="qpa_trackers_")  # wandb and trackio ask for it once in a process
ENDS = {"wandb": "finish", "mlflow": "end_run"}


def tensorboard(folder: Path) -> Values:
    """Return the last value of each series in an event file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Values = {}
    for file in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file))
        events.Reload()
        found |= {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    return found


def wandb(folder: Path) -> Values:
    """Return the last value of each series in an offline run's file."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: Values = {}
    for data in _chunks(_newest(Path(PLACE.name), "*.wandb").read_bytes()):
        for item in Record.FromString(data).history.item:
            value = json.loads(item.value_json)
            if isinstance(value, (int, float)):
                found["/".join(item.nested_key) or item.key] = value
    return found


def _newest(folder: Path, pattern: str) -> Path:
    return max(folder.rglob(pattern), key=lambda file: file.stat().st_mtime_ns)


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the records of LevelDB's log format, in which wandb writes, after its own seven bytes."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if not kind:
            return
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def mlflow(folder: Path) -> Values:
    """Return the last value of each metric of the only run."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    return dict(runs[0].data.metrics)


def trackio(folder: Path) -> Values:
    """Return the last value of each series in the project's tables."""
    found: Values = {}
    tables = sqlite3.connect(_newest(Path(PLACE.name), "*.db"))
    for (row,) in tables.execute("SELECT metrics FROM metrics ORDER BY step"):
        found |= {k: v for k, v in json.loads(row).items() if isinstance(v, (int, float))}
    return found


def tracked(arm: Arm, folder: Path, name: str, read: Callable[[Path], Values], **environment: str) -> list[Figure]:
    """Train with a tracker, and compare what it kept with Trainer's own history."""
    os.environ |= {key: value.format(folder=folder, place=PLACE.name) for key, value in environment.items()}
    here, project = Path.cwd(), arm.name.replace(", ", "-").replace(" ", "-")
    os.chdir(folder)
    try:
        run = trainer(arm, tiny.save_base(folder / "base"), folder / "run", report_to=name, project=project)
        if arm.kind is QPAConfig:
            run.add_callback(CircuitMetricsCallback())
        run.train()
        if name in ENDS:  # the others end with the training
            getattr(importlib.import_module(name), ENDS[name])()
    finally:
        os.chdir(here)
    found = read(folder)
    logged: Values = {}
    for row in run.state.log_history:
        logged |= {k: v for k, v in row.items() if isinstance(v, (int, float)) and not k.startswith("train_")}
    logged = {k: v for k, v in logged.items() if k not in ("step", "epoch", "total_flos")}
    expect(arm.kind is not QPAConfig or any("qpa" in k for k in logged), f"no circuits among {sorted(logged)}")
    there = {name.removeprefix("train/"): value for name, value in found.items()}
    expect(logged.keys() <= there.keys(), f"{sorted(logged.keys() - there.keys())} are not in {sorted(there)}")
    pairs = [(there[name], value) for name, value in logged.items()]
    kept, expected = torch.tensor(pairs, dtype=torch.float64).T
    return [difference("values", kept, expected)]


CASES: dict[str, Callable[..., list[Figure]]] = {
    "tensorboard": partial(tracked, name="tensorboard", read=tensorboard),
    "wandb, offline": partial(tracked, name="wandb", read=wandb, WANDB_MODE="offline", WANDB_DIR="{place}"),
    "mlflow, a local file": partial(
        tracked, name="mlflow", read=mlflow, MLFLOW_TRACKING_URI="sqlite:///{folder}/mlflow.db"
    ),
    "trackio, local": partial(tracked, name="trackio", read=trackio, TRACKIO_DIR="{place}"),
}
