"""The arms: the whole network, smaller ones, generated ones in two forms, and what controls them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.harness.study import Arm
from benchmarks.quantum_train.task import Task
from qpa_hf import QPAConfig, generate

# One circuit, the basis state's bits and its probability into a mapping model of these widths without activations, one
# value at a time: the published code of Quantum-Train (https://arxiv.org/abs/2405.11304).
ORIGINAL = {
    "start": "authors",
    "features": "authors",
    "use_basis_bits": True,
    "mapping_widths": [4, 20, 4],
    "n_circuits": 1,
    "circuit_depth": 32,
    "chunk_size": 1,
}
OURS = {"n_circuits": 8, "circuit_depth": 8}  # on initial values, what `generate` does unless told otherwise
VALUES = OURS | {"start": "authors"}  # as in the original form the values are the generated ones


class Plan(NamedTuple):
    """What an arm is on a task.

    Args:
        width: of the network.
        settings: of `generate`; None where the network itself is trained.
    """

    width: int
    settings: dict[str, Any] | None

    def model(self, task: Task, seed: int) -> nn.Module:
        """Return the untrained model."""
        torch.manual_seed(seed)
        network = task.build(self.width)
        return network if self.settings is None else generate(network, init_seed=seed, **self.settings)

    def n_trainable(self, task: Task) -> int:
        """Return how many numbers are trained."""
        n_values = sum(p.numel() for p in task.build(self.width).parameters())
        return n_values if self.settings is None else QPAConfig(**self.settings).generator_spec(n_values).n_trainable


def _generated(family: str, control_of: str | None = None, **settings: Any) -> Arm:
    return Arm(family, lambda task: Plan(task.width, settings), control_of)


def _smaller(like: str) -> Arm:
    """The network whose numbers are nearest to those that another arm trains; widths are whole numbers."""

    def plan(task: Task) -> Plan:
        n_trainable = ARMS[like].make(task).n_trainable(task)
        plans = [Plan(width, None) for width in range(1, task.width + 1)]
        return min(plans, key=lambda one: abs(one.n_trainable(task) - n_trainable))

    return Arm("direct", plan, like)


def _subspace(like: str) -> Arm:
    """As many fixed random directions in the space of all values as another arm trains numbers, less the offset."""

    def plan(task: Task) -> Plan:
        n_directions = ARMS[like].make(task).n_trainable(task) - 1
        return Plan(task.width, {"chunk_size": 1, "n_circuits": n_directions, "source": "random"})

    return Arm("random subspace", plan, like)


def _random(like: str, settings: dict[str, Any]) -> Arm:
    return _generated("control", like, source="random", **settings)


def _frozen(like: str, settings: dict[str, Any]) -> Arm:
    return _generated("control", like, train_circuit=False, **settings)


DIRECT = "whole network"
FEW = OURS | {"n_circuits": 2, "chunk_size": 64}

# `make` takes the task and returns a plan.
ARMS: dict[str, Arm] = {
    DIRECT: Arm("direct", lambda task: Plan(task.width, None)),
    "original, depth 8": _generated("original", **ORIGINAL | {"circuit_depth": 8}),
    "original": _generated("original", **ORIGINAL),
    "original, random": _random("original", ORIGINAL),
    "original, frozen": _frozen("original", ORIGINAL),
    "original, chunk 16": _generated("original", **ORIGINAL | {"chunk_size": 16}),
    "values, chunk 1": _generated("values", **VALUES, chunk_size=1),
    "values, chunk 16": _generated("values", **VALUES, chunk_size=16),
    "chunk 1": _generated("chunks", **OURS, chunk_size=1),
    "chunk 16": _generated("chunks", **OURS, chunk_size=16),
    "chunk 16, random": _random("chunk 16", OURS | {"chunk_size": 16}),
    "chunk 16, frozen": _frozen("chunk 16", OURS | {"chunk_size": 16}),
    "chunk 64, 2 circuits": _generated("chunks", **FEW),
    "chunk 64, 2 circuits, random": _random("chunk 64, 2 circuits", FEW),
    "chunk 64": _generated("chunks", **OURS, chunk_size=64),
    "chunk 64, random": _random("chunk 64", OURS | {"chunk_size": 64}),
    "chunk 64, frozen": _frozen("chunk 64", OURS | {"chunk_size": 64}),
    "chunk 256": _generated("chunks", **OURS, chunk_size=256),
    "chunk 256, random": _random("chunk 256", OURS | {"chunk_size": 256}),
    "smaller, as chunk 64, 2 circuits": _smaller("chunk 64, 2 circuits"),
    "smaller, as chunk 16": _smaller("chunk 16"),
    "smaller, as chunk 256": _smaller("chunk 256"),
    "subspace, as chunk 64, 2 circuits": _subspace("chunk 64, 2 circuits"),
    "subspace, as chunk 16": _subspace("chunk 16"),
}
QUICK = (DIRECT, "original", "chunk 16", "chunk 16, random", "smaller, as chunk 16")
