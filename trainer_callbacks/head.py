"""Fit a random head on what the frozen base model says, before anything asks the head for a gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import Trainer

from qpa_hf.messages import shown
from qpa_hf.processes import is_distributed
from qpa_hf.sharding import is_fsdp, is_zero3
from qpa_hf.trainer_callbacks.own_batches import own_batches
from qpa_hf.tuners.qpa.gradient_basis import first_examples, without_adapters

N_PASSES = 4  # over the examples, each in an order of its own
RATE = 1e-2  # of AdamW in the first pass, and falling in equal steps to a fourth of it in the last one


def head_of(model: nn.Module, adapter_name: str) -> list[nn.Parameter]:
    """Return the parameters of an adapter's `modules_to_save`.

    Raises:
        ValueError: if it has none, or if they are spread over processes.
    """
    wrappers = [m for m in model.modules() if isinstance(m, ModulesToSaveWrapper)]
    heads = [m.modules_to_save[adapter_name] for m in wrappers if adapter_name in m.modules_to_save]
    found = [parameter for head in heads for parameter in head.parameters()]
    if not found:
        raise ValueError(
            f"Adapter {shown(adapter_name)} has no head to fit. Configure one, by task_type='SEQ_CLS' or "
            "`modules_to_save`, or leave `fit_head` out."
        )
    if is_fsdp(model) or is_zero3(model):
        raise ValueError("A sharded head cannot be fitted. Train with DDP, or fit it before and leave `fit_head` out.")
    return found


def fit_head(
    trainer: Trainer,
    model: nn.Module,
    adapter_name: str,
    n_examples: int,
    loss: Callable[[nn.Module, Mapping[str, Any]], Tensor],
) -> None:
    """Train an adapter's head alone, with adapters and dropout off, in a few passes over the trainer's own batches.

    Args:
        trainer: the trainer whose batches are read.
        model: the adapted model in it, whose head is trained in place.
        adapter_name: the adapter's name.
        n_examples: number of examples of each pass, in each process.
        loss: function of (model, batch) that returns a tensor with its graph.

    Raises:
        ValueError: if there is no head, if it is sharded, or if its gradient is not finite.
    """
    head = head_of(model, adapter_name)
    optimizer = torch.optim.AdamW(head, lr=RATE)
    with without_adapters(model):
        for i in range(N_PASSES):
            optimizer.param_groups[0]["lr"] = RATE * (1 - i / N_PASSES)
            with own_batches(trainer, f"head, pass {i}") as batches:
                for batch in first_examples(batches, n_examples):
                    _step(optimizer, head, loss(model, batch))


def _step(optimizer: torch.optim.Optimizer, head: list[nn.Parameter], loss: Tensor) -> None:
    # Nothing but the head gets a gradient, so that the backward pass ends there.
    gradients = torch.autograd.grad(loss, head)
    for parameter, gradient in zip(head, gradients, strict=True):
        if is_distributed():
            dist.all_reduce(gradient)
            gradient /= dist.get_world_size()
        if not bool(gradient.isfinite().all()):
            raise ValueError("The gradient of the head is not finite. Check the examples and the dtype.")
        parameter.grad = gradient
    optimizer.step()
    optimizer.zero_grad()
