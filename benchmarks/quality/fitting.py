"""Train one adapter on one task: the same loop for every arm."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import Tensor, nn

from benchmarks.harness.fitting import descend
from benchmarks.quality.on_bases import FromCircuits, OnBases, Own
from benchmarks.quality.task import Task
from qpa_hf import initialize_basis, refresh_basis
from qpa_hf.tuners.qpa.basis_cost import EXACT_BYTES

WARMUP = 0.06  # share of the steps with a rising learning rate
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


def prepare(
    task: Task, config: PeftConfig | Own | None, seed: int, device: str, exact_bytes: int = EXACT_BYTES
) -> nn.Module:
    """Return the task's base with an untrained adapter, or as it is without a configuration."""
    torch.manual_seed(seed)
    if isinstance(config, (OnBases, FromCircuits)):
        return config.build(task, device, exact_bytes, seed)
    base = task.base().to(device)
    if config is None:
        return base
    model = get_peft_model(base, config).to(device)  # type: ignore[arg-type]
    if getattr(config, "basis", "") == "gradient":
        initialize_basis(model, task.batches(seed), n_examples=task.n_basis, exact_bytes=exact_bytes)
    return model


def fit(
    task: Task,
    config: PeftConfig | Own | None,
    rate: float,
    seed: int,
    device: str,
    exact_bytes: int = EXACT_BYTES,
) -> Fitted:
    """Train an adapter with AdamW, without weight decay, its rate rising and then falling linearly.

    Raises:
        ArithmeticError: if the loss or a trained number stops being finite.
    """
    start = time.perf_counter()
    model = prepare(task, config, seed, device, exact_bytes)
    trained = [p for p in model.parameters() if p.requires_grad]
    n_stages = getattr(config, "n_stages", 1)
    n_steps = task.n_steps()
    losses = [math.nan]
    if trained:
        starts = [n_steps * stage // n_stages for stage in range(1, n_stages)]
        batches = _losses(model, task, seed, device, starts)
        losses = descend(trained, batches, rate, n_steps, math.ceil(WARMUP * n_steps), starts)
    last = losses[-max(1, len(losses) // 10) :]
    n_trainable = n_stages * sum(p.numel() for p in trained)
    return Fitted(model.eval(), n_trainable, sum(last) / len(last), time.perf_counter() - start)


def _losses(model: Any, task: Task, seed: int, device: str, starts: list[int]) -> Iterator[Tensor]:
    """Yield the loss of one batch after the other; the bases are found anew where a stage starts."""
    model.train()
    torch.manual_seed(seed)  # what building the adapter drew differs between arms
    for step, batch in enumerate(task.batches(seed)):
        if step in starts:
            refresh_basis(model, task.batches(seed + FAR * (1 + starts.index(step))), n_examples=task.n_basis)
        yield model(**{key: value.to(device) for key, value in batch.items()}).loss
