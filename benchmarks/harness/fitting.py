"""The loop that trains whatever an arm makes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

MAX_NORM = 1.0  # of the gradient, Trainer's default


def descend(
    trained: list[Any], losses: Iterable[Tensor], rate: float, n_steps: int, n_warmup: int, anew: Collection[int] = ()
) -> list[float]:
    """Train with AdamW, without weight decay, its rate rising and then falling linearly; return the losses.

    Args:
        trained: parameters.
        losses: losses of the model as it is when each of them is asked for.
        rate: largest learning rate.
        n_steps: number of losses.
        n_warmup: number of steps with a rising rate.
        anew: steps at which the optimizer forgets what it has seen.

    Raises:
        ArithmeticError: if a loss or a parameter stops being finite.
    """
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, n_warmup, n_steps)
    found: list[float] = []
    for step, loss in enumerate(losses):
        if step in anew:
            optimizer.state.clear()
        found.append(loss.item())
        if not math.isfinite(found[-1]):
            raise ArithmeticError(f"The loss is {found[-1]} at step {len(found)}.")
        loss.backward()
        nn.utils.clip_grad_norm_(trained, MAX_NORM)
        optimizer.step()
        if not all(bool(p.isfinite().all()) for p in trained):  # circuits would refuse them as bad input
            raise ArithmeticError(f"A trained number is not finite after step {len(found)}.")
        schedule.step()
        optimizer.zero_grad()
    return found
