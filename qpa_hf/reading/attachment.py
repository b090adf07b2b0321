"""Parameters taken out and read from a bank, and the way back."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from qpa_hf.generator import Bank
from qpa_hf.reading.places import Place, by_module, entries_of
from qpa_hf.reading.reader import (
    ModelRoot,
    Reader,
    put_back,
    put_back_entries,
    reader_of,
    replace_entry,
    replace_parameters,
)

GENERATOR_NAME = "qpa_generator"
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
Groups = Sequence[Sequence[Place]]  # one for each slot of a bank: tied Parameters stand in several places


def attach(
    bank: Bank, groups: Groups, root: nn.Module | None = None, root_class: type[ModelRoot] | None = None
) -> None:
    """Replace the Parameters in all places by reads from a bank.

    Args:
        bank: the bank to read from.
        groups: the places of each slot.
        root: the root of the model, if it is to tell the bank of each forward pass.
        root_class: the class whose behaviour the root takes on from now on.
    """
    # All readers are made before any module changes: each of them looks at a Parameter that is still in its place.
    readers = [(place, _reader(bank, slot, place)) for slot, group in enumerate(groups) for place in group]
    entries = entries_of(place for place, _ in readers)
    for module, named in by_module(readers, root):
        if id(module) in entries:
            for key, reader in named.items():
                replace_entry(module, key, reader)  # type: ignore[arg-type]
        elif module is root:
            replace_parameters(module, named, bank, root_class)
        else:
            replace_parameters(module, named)


def _reader(bank: Bank, slot: int, place: Place) -> Reader:
    if place.anchor is not None:
        return Reader(bank, slot, place.is_transposed, place.anchor)
    # An empty tensor remembers dtype and device, and follows the module when it is moved, at no cost in memory.
    like = torch.empty(0, dtype=place.parameter.dtype, device=place.parameter.device)
    return Reader(bank, slot, place.is_transposed, None, like)


def detach(
    bank: Bank, groups: Groups, are_trainable: Sequence[bool], root: nn.Module | None = None
) -> dict[str, nn.Parameter]:
    """Undo `attach`: put plain Parameters with the values in use back, tied as before.

    Args:
        bank: the bank that was read from.
        groups: the places of each slot.
        are_trainable: whether each slot's Parameter gets `requires_grad`.
        root: the root of the model, if one was given to `attach`.

    Returns:
        The Parameters by their full names.
    """
    parameters: list[tuple[Place, nn.Parameter]] = []
    for group, value, is_trainable in zip(groups, bank.values(), are_trainable, strict=True):
        # Places of one slot share a Parameter. The transposed ones share another on the same memory, because a
        # Parameter cannot have two shapes, and a step on either then changes both.
        tied: dict[bool, nn.Parameter] = {}
        for place in group:
            if place.is_transposed not in tied:
                data = tied[not place.is_transposed].data.t() if tied else _value(place, value)
                tied[place.is_transposed] = nn.Parameter(data, requires_grad=is_trainable)
            parameters.append((place, tied[place.is_transposed]))
    entries = entries_of(place for place, _ in parameters)
    for module, named in by_module(parameters, root):
        if id(module) in entries:
            put_back_entries(module, named)  # type: ignore[arg-type]
        else:
            put_back(module, named)
    return {place.name: parameter for place, parameter in parameters}


def _value(place: Place, value: Tensor) -> Tensor:
    """Return a copy of a slot's value as its first place, which is never the transposed one, reads it."""
    found = reader_of(place.module, place.attribute).placed(value)
    return found.detach().clone(memory_format=torch.contiguous_format)


class Attachment:
    """What `generate` has done to a module: Parameters taken out, a generator put in.

    Args:
        root: the whole module.
        settings: all settings of the generator.
        bank: the bank with one slot for each group of places.
        places: the places where each slot is read.
        root_class: the class whose behaviour the module takes on from now on.
        adapter_name: the name of the generated adapter of a PEFT model, None for any other module.
    """

    def __init__(
        self,
        root: nn.Module,
        settings: dict[str, Any],
        bank: Bank,
        places: list[list[Place]],
        root_class: type[ModelRoot],
        adapter_name: str | None,
    ) -> None:
        self.root = root
        self.settings = settings
        self.root_class = root_class
        self.adapter_name = adapter_name
        self.bank = bank
        self.places = places
        self.are_trainable = [group[0].parameter.requires_grad for group in places]

    @property
    def names(self) -> list[str]:
        """Name of each slot, that of its first place."""
        return [group[0].name for group in self.places]

    @property
    def layout(self) -> list[list[Any]]:
        """Name and shape of each slot."""
        return [[name, list(shape)] for name, shape in zip(self.names, self.bank.pieces.shapes, strict=True)]

    def attach(self) -> None:
        """Replace every chosen Parameter by a read from the bank."""
        attach(self.bank, self.places, self.root, self.root_class)

    def detach(self) -> dict[str, nn.Parameter]:
        """Replace every read by a plain Parameter with the value in use, tied as before; return them by name."""
        return detach(self.bank, self.places, self.are_trainable, self.root)

    @contextlib.contextmanager
    def detached(self) -> Iterator[dict[str, nn.Parameter]]:
        """Put plain Parameters back for a while."""
        found = self.detach()
        try:
            yield found
        finally:
            self.attach()


class BankHolder:
    """Marks a model that keeps a bank for each of its generated adapters, by the adapter's name."""

    banks: dict[str, Bank]


def attachment_of(module: nn.Module) -> Attachment | None:
    """Return what `generate` has done to a module, None if nothing."""
    return module.__dict__.get("_attachment")


def generator_owner(root: nn.Module, places: Groups) -> nn.Module:
    """Return the module whose child the generator becomes.

    A module without children, because those that have some may call all of them one after the other; PEFT's do not.
    """
    if isinstance(root, PeftModel):
        return root
    owners = [place.module for place in itertools.chain.from_iterable(places)]
    leaves = [m for m in root.modules() if not isinstance(m, CONTAINERS)]
    return next((m for m in [*owners, *leaves] if not any(True for _ in m.children())), root)


def install(attachment: Attachment) -> None:
    """Put a generator into a module."""
    root = attachment.root
    root.__dict__["_attachment"] = attachment
    generator_owner(root, attachment.places).add_module(GENERATOR_NAME, attachment.bank.generator)
    attachment.attach()


def remove(module: nn.Module) -> None:
    """Undo `install`: leave plain Parameters with the values in use."""
    attachment: Attachment = module.__dict__.pop("_attachment")
    attachment.detach()
    for owner in module.modules():
        if owner._modules.get(GENERATOR_NAME) is attachment.bank.generator:
            del owner._modules[GENERATOR_NAME]
