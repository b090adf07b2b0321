"""Where Parameters stand that a generator replaces."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from torch import nn

Item = TypeVar("Item")


class Place(NamedTuple):
    """A Parameter's place in a module.

    Args:
        name: the Parameter's full name.
        module: the module that owns it.
        attribute: the Parameter's name within that module.
        is_transposed: whether it is the transpose of the Parameter that it is tied to.
        is_entry: whether it is an entry of a ParameterDict whose items PEFT lists to set `requires_grad`, which
            cannot be set on generated tensors.
        anchor: the frozen layer beside which the tensor is needed, in float32; None if the tensor takes the
            Parameter's own dtype and device.
    """

    name: str
    module: nn.Module
    attribute: str
    is_transposed: bool = False
    is_entry: bool = False
    anchor: nn.Module | None = None

    @property
    def parameter(self) -> nn.Parameter:
        """The Parameter that stands there."""
        return self.module._parameters[self.attribute]  # type: ignore[return-value]


def by_module(items: Iterable[tuple[Place, Item]], root: nn.Module | None) -> list[tuple[nn.Module, dict[str, Item]]]:
    """Return the modules of some places, each with its items by attribute: a module is changed once, as a whole.

    Args:
        items: the places, each with what belongs to it.
        root: a module that comes first, also without a place of its own.
    """
    # A class that is swapped twice would be one generated class on top of another, and the way back undoes one swap.
    modules: dict[int, tuple[nn.Module, dict[str, Item]]] = {} if root is None else {id(root): (root, {})}
    for place, item in items:
        modules.setdefault(id(place.module), (place.module, {}))[1][place.attribute] = item
    return list(modules.values())


def entries_of(places: Iterable[Place]) -> set[int]:
    """Return the identities of the ParameterDicts whose entries PEFT lists."""
    return {id(place.module) for place in places if place.is_entry}
