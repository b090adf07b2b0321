"""What a task is to the bench: a frozen base, batches in an order set by a seed, and two parts to measure on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

Part = Literal["development", "test"]
Batch = dict[str, Tensor]

MISSING_DATA = "Pass the folder that holds it with --data."


@dataclass(frozen=True)
class Targets:
    """The layers that adapters may change, as the configurations of PEFT's methods name them.

    Args:
        modules: a regular expression for the linear layers, matched against the whole name.
        shapes: (inputs, outputs) of each of them.
        feedforward: those of `modules` that scale their input instead of their output in IA3.
        norms: layer normalisations in the same blocks, for methods that train nothing else; empty if there are none.
        task_type: PEFT's name of the task, None for a model of our own.
    """

    modules: str
    shapes: tuple[tuple[int, int], ...]
    feedforward: str
    norms: str
    task_type: str | None


@dataclass(frozen=True)
class Measured:
    """A model on a part of the data.

    Args:
        metrics: means over all rows; `cross_entropy`, in nats, is always among them.
        losses: cross-entropy of each row (a sentence, a block of text, an image), shape (n_rows,).
    """

    metrics: dict[str, float]
    losses: Tensor


class Task(Protocol):
    """One base model, adapted to one text. Implementations are frozen dataclasses: processes build their own copy."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on, without paths of this machine."""

    @property
    def targets(self) -> Targets:
        """What is adapted."""

    @property
    def n_basis(self) -> int:
        """From how many training examples bases are found, where a method asks for the gradient."""

    def base(self) -> nn.Module:
        """Return a fresh copy of the frozen base, in float32 on the CPU."""

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield the training batches of one run, labels included, in the order that belongs to the seed."""

    def n_steps(self) -> int:
        """How many batches a run has."""

    def evaluate(self, model: nn.Module, part: Part) -> Measured:
        """Measure a model on a part."""
