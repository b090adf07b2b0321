"""What a run is about to do, said before it starts, and how long it will take, said after its first steps."""

from __future__ import annotations

import sys
import time
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback

from qpa_hf.terminal import say
from qpa_hf.training.data import Examples
from qpa_hf.training.settings import RunSettings
from qpa_hf.training.tasks import TASKS

MOST_NAMES = 6  # of layers that are named
N_TIMED = 5  # steps that the estimate stands on, after the first, which warms up
FEWEST_STEPS = 20  # shorter runs have ended before an estimate helps
FLOAT_BYTES = 4
N_COPIES = 3  # gradient and AdamW's two moments, for each trained parameter


def announce(trainer: Trainer, settings: RunSettings, data: Examples) -> None:
    """Say what a run adapts, on which examples, in how many steps, where, and in how much memory."""
    task, training = TASKS[settings.task], settings.training
    n_steps = settings.n_steps(len(data.train))
    batch = training["per_device_train_batch_size"]
    how = f"learning rate {trainer.args.learning_rate:g} ({training['lr_scheduler_type']})"
    for line in (
        _adapted(trainer.model, settings.model),
        task.describe(data, settings.data),
        f"Training: {n_steps:,} steps of {batch} {task.unit} for each device, {how}",
        f"Device: {trainer.args.device}; {_memory(trainer.model)} for model and optimizer, activations aside",
    ):
        say(line, is_error=True)


def _adapted(model: Any, name: str) -> str:
    layers = [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    kinds = list(dict.fromkeys(layer.rpartition(".")[2] for layer in layers))
    shown = ", ".join(kinds[:MOST_NAMES]) + (", ..." if len(kinds) > MOST_NAMES else "")
    n_trained, n_all = model.get_nb_trainable_parameters()
    saved = {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".modules_to_save." in name
    }
    modules = dict.fromkeys(name.partition(".modules_to_save.")[0].rpartition(".")[2] for name in saved)
    beside = f", {sum(saved.values()):,} of them in {', '.join(modules)}" if saved else ""
    return (
        f"Adapting {len(layers)} layers ({shown}) of {name}: {n_trained:,} trained parameters{beside}, "
        f"{100 * n_trained / n_all:.3g} % of {n_all:,}"
    )


def _memory(model: Any) -> str:
    n_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    n_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return f"{(n_bytes + N_COPIES * FLOAT_BYTES * n_trained) / 2**20:,.3g} MiB"


class EstimateCallback(TrainerCallback):
    """Says once, after the first steps, how long the others will take."""

    def __init__(self) -> None:
        self.n_begun = 0
        self.start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.n_begun += 1
        if self.n_begun == 2:
            self.start = time.perf_counter()
        n_left = state.max_steps - state.global_step
        if self.n_begun == 2 + N_TIMED and state.max_steps >= FEWEST_STEPS:
            seconds = (time.perf_counter() - self.start) / N_TIMED
            left = f"the other {n_left:,} steps, {seconds:.2g} s each, evaluations aside"
            tqdm.write(f"About {duration(n_left * seconds)} for {left}", file=sys.stderr)  # above the bar


def duration(seconds: float) -> str:
    """Return a time in the unit that people would use.

    Example:
        >>> duration(42), duration(754), duration(30_000)
        ('42 s', '13 min', '8.3 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
