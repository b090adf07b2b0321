"""What a task of the Quantum-Train study is: a network of any width, losses to descend on, and a measure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Part = Literal["development", "test"]


class Task(Protocol):
    """A task, all of whose settings are fields of a frozen dataclass.

    Args:
        name: of the task.
        network: its architecture, in words.
        measure: the key of `evaluate` that is reported.
        unit: how the measure is written: "%", or a unit such as "ppm".
        is_higher_better: whether more of the measure is better.
        width: of the whole network; smaller ones have smaller widths.
        n_tuning: runs of one learning rate while rates are chosen.
        n_steps: updates of one run.
    """

    name: str
    network: str
    measure: str
    unit: str
    is_higher_better: bool
    n_tuning: int
    width: int
    n_steps: int

    def build(self, width: int) -> nn.Module:
        """Return a network of some width with torch's own random initialisation."""

    def losses(self, model: nn.Module, seed: int) -> Iterator[Tensor]:
        """Yield `n_steps` losses of the model as it is at that moment, on data that belongs to the seed."""

    def evaluate(self, model: nn.Module, part: Part) -> dict[str, float]:
        """Return the measure, and `loss`, by which learning rates are chosen (lower is better)."""

    def references(self) -> dict[str, float]:
        """Return the test measure of simple methods without a network, by their names."""


def batches(n_rows: int, batch_size: int, n_steps: int, seed: int) -> Iterator[Tensor]:
    """Yield `n_steps` batches of row numbers, shape (batch_size,), every epoch in an order of its own."""
    rng = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(n_steps):
        if len(order) < batch_size:
            order = torch.randperm(n_rows, generator=rng)
        yield order[:batch_size]
        order = order[batch_size:]
