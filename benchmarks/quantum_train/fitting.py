"""One run of one arm: train, measure, say on what."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from benchmarks.quality.runs import environment
from benchmarks.quantum_train.arms import Plan
from benchmarks.quantum_train.task import Part, Task

MAX_NORM = 1.0  # of the gradient

Row = dict[str, Any]


def fit(task: Task, plan: Plan, rate: float, seed: int) -> tuple[nn.Module, int]:
    """Train with AdamW, without weight decay, its rate falling linearly; return the model and its trained numbers.

    Raises:
        ArithmeticError: if the loss stops being a number.
    """
    model = plan.model(task, seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, task.n_steps)
    for step, loss in enumerate(task.losses(model, seed)):
        if not math.isfinite(loss.item()):
            raise ArithmeticError(f"The loss is {loss.item()} at step {step}.")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, MAX_NORM)
        optimizer.step()
        schedule.step()
    return model.eval(), sum(p.numel() for p in trained)


def execute(task: Task, plan: Plan, part: Part, rate: float, seed: int) -> Row:
    """Do a run and return what is kept of it; it is measured on one part only."""
    start = time.perf_counter()
    row: Row = {"rate": rate, "seed": seed, "part": part}
    try:
        model, n_trainable = fit(task, plan, rate, seed)
        row |= {"n_trainable": n_trainable, **task.evaluate(model, part)}
    except ArithmeticError as error:
        row |= {"n_trainable": plan.n_trainable(task), "diverged": str(error)}
    origin = {"environment": environment("cpu"), "timestamp": datetime.now(UTC).isoformat(timespec="seconds")}
    return row | {"seconds": round(time.perf_counter() - start, 2)} | origin
