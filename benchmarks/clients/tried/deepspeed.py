"""DeepSpeed through Trainer, on two CPU processes: gradients and parameters against one process, and checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.clients import plain, tiny
from benchmarks.clients.arms import Arm
from benchmarks.clients.figures import Figure, difference, expect, expect_moved, trained
from benchmarks.clients.tried.transformers import trainer
from qpa_hf import QPAConfig, materialize

N_PROCESSES = 2
CONSTANT = {"lr_scheduler_type": "constant"}
ONE_STEP = {
    **CONSTANT,
    "max_steps": 1,
    "optim": "sgd",
    "learning_rate": 1.0,
    "save_strategy": "no",
    "max_grad_norm": 0.0,
}


def _two(folder: Path, stage: int, arm: Arm, name: str, resume: Path | None = None, **more: Any) -> dict[str, Tensor]:
    """Train on two processes and return the parameters."""
    native = str(folder / "native") if arm.has_gradient_bases else None
    target = folder / f"{name}.pt"
    asked = [stage, arm.name, str(folder / "base"), native, str(folder / name), str(target)]
    asked += [str(resume) if resume else None, {**CONSTANT, **more}]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(N_PROCESSES)]
    command = [sys.executable, *start, "-m", "benchmarks.clients.processes", json.dumps(asked)]
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=600, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("[rank0]") and "Error: " in line]
        raise RuntimeError((errors or done.stderr.strip().splitlines())[-1].removeprefix("[rank0]: "))
    found = torch.load(target)
    expect(found["n_processes"] == N_PROCESSES, f"it ran on {found['n_processes']} processes")
    return found["parameters"]


def _gradients(arm: Arm, folder: Path, stage: int) -> Figure:
    one = trainer(arm, folder / "base", folder / "one", per_device_train_batch_size=4, **ONE_STEP)
    start = trained(one.model)
    one.train()
    expected = {name: start[name] - value for name, value in trained(one.model).items()}
    after = _two(folder, stage, arm, "gradients", **ONE_STEP)
    return difference("gradients", {name: start[name] - value for name, value in after.items()}, expected)


def zero(arm: Arm, folder: Path, stage: int) -> list[Figure]:
    """Train, resume, and use the last checkpoint's plain adapter without qpa_hf; one process is what is compared."""
    base = tiny.save_base(folder / "base")
    one = trainer(arm, base, folder / "single", per_device_train_batch_size=4, **CONSTANT)
    if arm.has_gradient_bases:
        one.model.save_pretrained(folder / "native")
    start = trained(one.model)
    one.train()
    expect_moved(one.model, start)
    figures = [_gradients(arm, folder, stage)]
    straight = _two(folder, stage, arm, "straight")
    figures.append(difference("parameters", straight, trained(one.model), 1e-4))
    again = _two(folder, stage, arm, "again", resume=folder / "straight" / "checkpoint-2")
    figures.append(difference("parameters after resuming", again, straight))
    adapter = folder / "straight" / "checkpoint-4"
    if arm.kind is QPAConfig:
        adapter = materialize(adapter, folder / "plain")
    return figures + plain.compared(one.model, base, adapter, bound=1e-4)


CASES: dict[str, Callable[..., list[Figure]]] = {
    "ZeRO-2": partial(zero, stage=2),
    "ZeRO-3": partial(zero, stage=3),
}
