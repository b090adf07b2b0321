"""Train one adapter on one task: the same loop for every arm."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import nn
from transformers import get_linear_schedule_with_warmup

from benchmarks.quality.task import Task
from qpa_hf import initialize_basis, refresh_basis

WARMUP = 0.06  # share of the steps with a rising learning rate
MAX_NORM = 1.0  # of the gradient, Trainer's default
FAR = 1000  # between the seeds by whose orders the stages of one run read examples for their bases


@dataclass(frozen=True)
class Fitted:
    """A trained model and what it took; `loss` is the mean over the last tenth of the steps, in nats.

    Numbers that are trained anew in several stages count in each.
    """

    model: nn.Module
    n_trainable: int
    loss: float
    seconds: float


def prepare(task: Task, config: PeftConfig | None, seed: int, device: str) -> nn.Module:
    """Return the task's base with an untrained adapter, or as it is without a configuration."""
    torch.manual_seed(seed)
    base = task.base().to(device)
    if config is None:
        return base
    model = get_peft_model(base, config).to(device)  # type: ignore[arg-type]
    if getattr(config, "basis", "") == "gradient":
        initialize_basis(model, task.batches(seed), n_examples=task.n_basis)
    return model


def fit(task: Task, config: PeftConfig | None, rate: float, seed: int, device: str) -> Fitted:
    """Train an adapter with AdamW, without weight decay, its rate rising and then falling linearly.

    Raises:
        ArithmeticError: if the loss or a trained number stops being finite.
    """
    start = time.perf_counter()
    model = prepare(task, config, seed, device)
    trained = [p for p in model.parameters() if p.requires_grad]
    n_stages = getattr(config, "n_stages", 1)
    losses = _train(model, trained, task, rate, seed, device, n_stages) if trained else [math.nan]
    last = losses[-max(1, len(losses) // 10) :]
    n_trainable = n_stages * sum(p.numel() for p in trained)
    return Fitted(model.eval(), n_trainable, sum(last) / len(last), time.perf_counter() - start)


def _train(
    model: Any, trained: list[Any], task: Task, rate: float, seed: int, device: str, n_stages: int
) -> list[float]:
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    n_steps = task.n_steps()
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(WARMUP * n_steps), n_steps)
    losses = []
    model.train()
    torch.manual_seed(seed)  # what building the adapter drew differs between arms
    starts = {n_steps * stage // n_stages: stage for stage in range(1, n_stages)}
    for step, batch in enumerate(task.batches(seed)):
        if step in starts:
            refresh_basis(model, task.batches(seed + FAR * starts[step]), n_examples=task.n_basis)
            optimizer.state.clear()
        loss = model(**{key: value.to(device) for key, value in batch.items()}).loss
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise ArithmeticError(f"The loss is {losses[-1]} at step {len(losses)}.")
        loss.backward()
        nn.utils.clip_grad_norm_(trained, MAX_NORM)
        optimizer.step()
        if not all(bool(p.isfinite().all()) for p in trained):  # circuits would refuse them as bad input
            raise ArithmeticError(f"A trained number is not finite after step {len(losses)}.")
        schedule.step()
        optimizer.zero_grad()
    return losses
