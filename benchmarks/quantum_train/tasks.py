"""The tasks of the study, by name."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.quantum_train.cartpole import CartPole
from benchmarks.quantum_train.co2 import Co2
from benchmarks.quantum_train.digits import Digits
from benchmarks.quantum_train.task import Task

TASKS: dict[str, Callable[..., Task]] = {task.name: task for task in (Digits, Co2, CartPole)}
