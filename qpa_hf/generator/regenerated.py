"""Running the generator: with its own graph, again in each backward pass, or once when a backward pass ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor

from qpa_hf.generator.freshness import Snapshot
from qpa_hf.generator.generator import Generator
from qpa_hf.generator.pieces import Pieces


def _detached(x: Tensor) -> Tensor:
    return x.detach()  # an output that its own graph saved would keep that graph for ever


def _unchanged(x: Any) -> Any:
    return x


def generated(generator: Generator, pieces: Pieces) -> tuple[list[Tensor], set[Any]]:
    """Return every slot, and the generator's nodes in the graph: one for all, or without a mapping model many."""
    # The innermost hooks win, so a checkpointed block that happens to read first does not try to recompute the
    # generator as if it were part of that block.
    with saved_tensors_hooks(_detached, _unchanged):
        made = generator(pieces.generated_shapes)
        return pieces.tensors(generator, made), {piece.grad_fn for piece in made} - {None}


class Regenerated(torch.autograd.Function):
    """All slots, with a graph that any number of backward passes can go through.

    The forward keeps no graph of the generator, only a snapshot of its numbers. Each backward pass runs the generator
    once more, from the same numbers, and goes through that graph: twice the work, for losses one after the other.
    """

    @staticmethod
    def forward(ctx: Any, generator: Generator, pieces: Pieces, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.generator = generator
        ctx.pieces = pieces
        ctx.numbers = Snapshot(parameters)
        ctx.set_materialize_grads(False)
        with torch.enable_grad():  # which tells the slots with a graph from those of a frozen basis
            slots, _ = generated(generator, pieces)
        values = tuple(slot.detach() for slot in slots)
        ctx.mark_non_differentiable(
            *(value for value, slot in zip(values, slots, strict=True) if not slot.requires_grad)
        )
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        parameters = list(ctx.generator.trained().values())
        if not (ctx.numbers.are_of(parameters) and ctx.numbers.hold(parameters)):
            raise RuntimeError(
                "The generator was trained between a forward and its backward pass. Call `backward` before the "
                "optimizer's step, or the model again after it."
            )
        with torch.enable_grad():
            slots, _ = generated(ctx.generator, ctx.pieces)
        pairs = [(slot, g) for slot, g in zip(slots, gradients, strict=True) if g is not None and slot.requires_grad]
        outputs, inner = zip(*pairs, strict=True)
        return (None, None, *torch.autograd.grad(outputs, parameters, inner, allow_unused=True))


class Leaves:
    """Detached stand-ins of the slots for readers inside a running backward pass.

    Activation checkpointing with `use_reentrant=True` recomputes each block there and runs the block's own backward
    pass, so that one graph of the generator would be gone through once for each block. The blocks' gradients are
    collected in leaves instead, and the generator's backward runs once, when the whole pass ends.

    Args:
        generator: the generator that makes the slots.
        pieces: how its vector becomes the slots.
    """

    def __init__(self, generator: Generator, pieces: Pieces) -> None:
        self._generator = generator
        self._pieces = pieces
        self._given: dict[int, Tensor] = {}

    def get(self, index: int) -> Tensor | None:
        """Return the leaf that readers of a slot were given in this pass, None if there was no reader."""
        return self._given.get(index)

    def give(self, index: int, value: Tensor, requires_grad: bool) -> Tensor:
        """Make the leaf of a slot from the slot's present value."""
        if not self._given:
            Variable._execution_engine.queue_callback(self._backward)
        self._given[index] = value.detach().requires_grad_(requires_grad)
        return self._given[index]

    def forget(self) -> None:
        """Drop the leaves of a backward pass that was broken off."""
        self._given = {}

    def _backward(self) -> None:
        leaves = self._given
        self._given = {}
        with_grad = {i: leaf.grad for i, leaf in leaves.items() if leaf.grad is not None}
        if not with_grad:
            return
        if any(isinstance(p, DTensor) for p in self._generator.parameters(recurse=False)):
            raise RuntimeError(
                "Reentrant checkpointing cannot be used under FSDP2, which has sharded the generator again when the "
                "backward pass through it begins. Set `use_reentrant=False`."
            )
        with torch.enable_grad():
            slots, _ = generated(self._generator, self._pieces)
        with_grad = {i: grad for i, grad in with_grad.items() if slots[i].requires_grad}  # a frozen basis has no use
        torch.autograd.backward([slots[i] for i in with_grad], list(with_grad.values()))
