"""Quantum-Train as a study: networks trained directly, or whose weights a generator makes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.fitting import descend
from benchmarks.harness.study import Arm, Measure, Purpose, Row
from benchmarks.quantum_train.arms import ARMS
from benchmarks.quantum_train.task import Part, Task

PARTS: dict[Purpose, Part] = {"tuning": "development", "final": "test"}


@dataclass(frozen=True)
class Networks:
    """A task and the networks that are compared on it.

    Args:
        task: see `Task`.
    """

    task: Task

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that all results depend on."""
        return dict(sorted(vars(self.task).items()))

    @property
    def measure(self) -> Measure:
        """The task's measure; rates are chosen by the loss."""
        return Measure(self.task.measure, self.task.unit, self.task.is_higher_better, "loss")

    @property
    def arms(self) -> Mapping[str, Arm]:
        """All arms."""
        return ARMS

    def head(self) -> dict[str, Any]:
        """Return the network in words, and what simple methods without one reach."""
        return {"network": self.task.network, "references": self.task.references()}

    def identity(self, arm: str, seed: int) -> list[Any]:
        """Return the arm's plan."""
        return [self.about(arm)]

    def about(self, arm: str) -> dict[str, Any]:
        """Return the arm's plan."""
        return self.arms[arm].make(self.task)._asdict()

    def run(self, arm: str, purpose: Purpose, rate: float, seed: int) -> Row:
        """Train a network and measure it on one part."""
        start = time.perf_counter()
        model = self.arms[arm].make(self.task).model(self.task, seed)
        trained = [p for p in model.parameters() if p.requires_grad]
        descend(trained, self.task.losses(model, seed), rate, self.task.n_steps, n_warmup=0)
        part = PARTS[purpose]
        row = {"n_trainable": sum(p.numel() for p in trained), part: self.task.evaluate(model.eval(), part)}
        return row | {"seconds": round(time.perf_counter() - start, 2)}
