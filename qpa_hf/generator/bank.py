"""The bank: one generator's vector as slots, one for each generated tensor, handed out as long as they are valid.

| a reader ...                                 | is given                  | the generator runs                     |
|----------------------------------------------|---------------------------|----------------------------------------|
| with gradients, in the whole model's forward | slots with its graph      | once, and anew after a backward pass   |
| with gradients, in a part called by itself   | slots that regenerate     | after a change, in each backward pass  |
| without gradients                            | slots without a graph     | after a change of a number             |
| inside a backward pass (recomputed blocks)   | detached leaves           | once more, when that pass ends         |
| under torch.compile                          | slots of the traced graph | once a forward; in a part, once a read |

Parts that are called alone may have losses of their own, one after the other, which is why theirs run the generator
again in each backward pass. Whether a number has changed is found by comparing numbers: once for each forward of the
whole model (PEFT's `generate` is one, with all its tokens, so that decoding does not run the circuits for each) and
once for each backward pass; for parts that are called alone and for bare reads, each time. `freshness.py` compares,
`regenerated.py` runs the generator, `pieces.py` and `frozen_bases.py` say how its vector becomes slots.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from qpa_hf.generator.freshness import Draws, Freshness, in_backward, version
from qpa_hf.generator.generator import Generator
from qpa_hf.generator.pieces import Pieces
from qpa_hf.generator.regenerated import Leaves, Regenerated, generated


class _Live(NamedTuple):
    """Slots with a graph behind them, and whether they belong to a forward of the whole model."""

    slots: list[Tensor]
    is_inside: bool


class _Constants(NamedTuple):
    """Slots without a graph, and their versions when they were made: nobody else may write them."""

    slots: list[Tensor]
    versions: list[int]


class Bank:
    """Hands out the slots of a `Generator` and decides when they must be generated again.

    Args:
        generator: the module that makes the vector.
        pieces: how the vector becomes the slots.
    """

    def __init__(self, generator: Generator, pieces: Pieces) -> None:
        self.generator = generator
        self.pieces = pieces
        self.refresh()

    def refresh(self) -> None:
        """Forget every generated value; the next reader has them generated anew."""
        self._freshness = Freshness(self.generator)
        self._draws = Draws(self.generator)
        self._leaves = Leaves(self.generator, self.pieces)
        self._live: _Live | None = None
        self._constants: _Constants | None = None
        self._have_graph: list[bool] = []  # which of the last live slots had a graph; a frozen basis has none
        self._traced: list[Tensor] | None = None  # torch.compile's, valid within one traced forward

    def __getstate__(self) -> dict[str, Any]:
        # A graph can be neither copied nor pickled; values are generated again on the other side.
        return {"generator": self.generator, "pieces": self.pieces}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.refresh()

    def begin_forward(self) -> None:
        """Call at the start of a forward of the whole model: with gradients on, generate anew.

        A step of training measures the circuits with other shots, once for all its forwards, since a checkpointed
        block must find again what it has read; evaluation keeps those of the last step.
        """
        if torch.compiler.is_compiling():
            self._draws.draw_in_graph()
            self._traced = self._slots_in_graph()
            return
        if not in_backward():
            if torch.is_grad_enabled():
                self._draws.draw_for_step()
                # Values without a graph as well, so that no numbers need be compared in a step of training.
                self._forget()
                self._leaves.forget()
            else:
                self._live = None  # a graph, because of which `torch.utils.swap_tensors` would refuse the parameters
        self._freshness.begin_forward()

    def end_forward(self) -> None:
        """Call at the end of a forward of the whole model."""
        self._traced = None
        if not torch.compiler.is_compiling():
            self._freshness.end_forward()

    def read(self, index: int) -> Tensor:
        """Return slot `index` as a float32 tensor of its shape."""
        if torch.compiler.is_compiling():
            # A part of the model that is compiled by itself does not pass through `begin_forward`.
            slots = self._traced if self._traced is not None else self._slots_in_graph()
            return slots[index]
        if not (torch.is_grad_enabled() and self.generator.trained()):
            return self._unwritten(self._kept(), index)
        if in_backward():
            return self._leaf(index)
        return self._live_slots()[index]

    def values(self) -> list[Tensor]:
        """Return every slot without a graph, to be kept.

        Raises:
            RuntimeError: if somebody has written into one.
        """
        constants = self._kept()
        return [self._unwritten(constants, index) for index in range(len(constants.slots))]

    def generate(self) -> list[Tensor]:
        """Return every slot as the generator makes it now, whatever is kept."""
        return generated(self.generator, self.pieces)[0]

    def _slots_in_graph(self) -> list[Tensor]:
        return self.pieces.tensors(self.generator, self.generator(self.pieces.generated_shapes))

    def _forget(self) -> None:
        self._freshness.forget()
        self._live = None
        self._constants = None

    def _forget_stale(self) -> None:
        if self._freshness.is_lost():
            self._forget()

    def _live_slots(self) -> list[Tensor]:
        self._forget_stale()
        live = self._live
        is_inside = self._freshness.is_inside
        if live is None or live.is_inside != is_inside or not (is_inside or self._freshness.is_of_parameters()):
            live = self._live = _Live(self._with_graph(), is_inside)
            if not is_inside:
                self._freshness.keep()
        return live.slots

    def _with_graph(self) -> list[Tensor]:
        parameters = list(self.generator.trained().values())
        # Others are a shard, or stand in a parameter's place for one call (`functional_call`).
        if not self._freshness.is_inside and all(map(_is_plain, parameters)):
            slots = list(Regenerated.apply(self.generator, self.pieces, *parameters))
            self._have_graph = [slot.requires_grad for slot in slots]
            return slots
        slots, nodes = generated(self.generator, self.pieces)
        self._have_graph = [slot.requires_grad for slot in slots]
        bank = weakref.ref(self)

        def forget(_: Any) -> None:
            if (owner := bank()) is not None:
                owner._live = None

        for node in nodes:
            node.register_prehook(forget)
        return slots

    def _kept(self) -> _Constants:
        self._forget_stale()
        if self._constants is None:
            # Tensors made in inference mode could not be used in a later forward with gradients.
            with torch.inference_mode(False), torch.no_grad():
                slots = self.generate()
                if not self._freshness.is_kept:
                    self._freshness.keep()
                self._constants = _Constants(slots, [version(slot) for slot in slots])
        return self._constants

    def _unwritten(self, constants: _Constants, index: int) -> Tensor:
        slot = constants.slots[index]
        if version(slot) != constants.versions[index]:
            self.refresh()
            raise RuntimeError(
                "A generated tensor was written in place, which changes nothing: its values come from the generator. "
                "Leave it out of what is generated, or call `materialize` first."
            )
        return slot

    def _leaf(self, index: int) -> Tensor:
        leaf = self._leaves.get(index)
        if leaf is None:
            value = self._live.slots[index] if self._live is not None else self._unwritten(self._kept(), index)
            leaf = self._leaves.give(index, value, not self._have_graph or self._have_graph[index])
        return leaf


def _is_plain(parameter: Tensor) -> bool:
    return isinstance(parameter, nn.Parameter) and not isinstance(parameter, DTensor)
