"""Read a trainer's own batches apart from its training, which is left as if nobody had read them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from transformers import Trainer, set_seed

from qpa_hf.models import evaluating
from qpa_hf.reproducible import seeded

LARGEST_SEED = 2**32
# What the trainers of trl log next, of the losses that they have computed since.
LOGGED = ("_metrics", "_logs", "_stored_metrics", "_pending_metrics", "_pending_extra_logs")


@contextmanager
def own_batches(trainer: Trainer, purpose: str) -> Iterator[Iterator[Mapping[str, Any]]]:
    """Give a trainer's training batches from the start, each prepared by the trainer as for a step.

    Their order, and all else that is random, follows from the trainer's seed and the purpose, whatever was drawn
    before. The model is in eval mode meanwhile. Random numbers, modes and what the trainer is about to log are as
    before afterwards.

    Args:
        trainer: the trainer, whose model may be on its devices already.
        purpose: the name of what is done with the batches.
    """
    seed = seeded(trainer.args.seed, purpose).initial_seed()
    model: Any = trainer.model
    with _drawing_apart(trainer.args.device), _logging_apart(trainer), evaluating(model):
        set_seed(seed)  # a sampler keeps the seed, which must be that of all processes
        loader = trainer.get_train_dataloader()
        set_seed((seed + trainer.args.process_index) % LARGEST_SEED)  # each generates other texts than its neighbour
        try:
            yield (trainer._prepare_inputs(batch) for batch in loader)
        finally:
            # It was not read to its end, and would pass for the one that is trained on.
            trainer.accelerator.gradient_state._remove_dataloader(loader)
            prepared = trainer.accelerator._dataloaders
            prepared[:] = [other for other in prepared if other is not loader]


@contextmanager
def _drawing_apart(device: torch.device) -> Iterator[None]:
    """Put the random numbers of Python, NumPy and torch back afterwards."""
    python, arrays = random.getstate(), numpy.random.get_state()
    accelerators = [] if device.type in ("cpu", "mps") else [device]
    kind = device.type if accelerators else "cuda"
    try:
        with torch.random.fork_rng(devices=accelerators, device_type=kind):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)


@contextmanager
def _logging_apart(trainer: Trainer) -> Iterator[None]:
    """Let a trainer take its notes in copies, which are thrown away."""
    kept = {name: vars(trainer)[name] for name in LOGGED if name in vars(trainer)}
    vars(trainer).update(copy.deepcopy(kept))
    try:
        yield
    finally:
        vars(trainer).update(kept)
