"""What `generate` has done to a module: Parameters taken out, a generator put in, and the way back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from qpa_hf.generating.selection import Place
from qpa_hf.generator import Bank
from qpa_hf.tuner.layers import Reader, Whole, put_back, put_back_entries, replace_entry, replace_parameters

GENERATOR_NAME = "qpa_generator"
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Generation:
    """The bank of a module, and the places that read from it.

    Args:
        root: the whole module.
        settings: of the generator, all of them.
        bank: has one slot for each group of places.
        places: where each slot is read.
        whole: what the module does otherwise from now on.
        adapter_name: name of the generated adapter of a PEFT model.
    """

    def __init__(
        self,
        root: nn.Module,
        settings: dict[str, Any],
        bank: Bank,
        places: list[list[Place]],
        whole: type[Whole],
        adapter_name: str | None,
    ) -> None:
        self.root = root
        self.settings = settings
        self.whole = whole
        self.adapter_name = adapter_name
        self.bank = bank
        self.places = places
        self.is_trainable = [group[0].parameter.requires_grad for group in places]

    @property
    def names(self) -> list[str]:
        """Name of each slot, that of its first place."""
        return [group[0].name for group in self.places]

    @property
    def layout(self) -> list[list[Any]]:
        """Name and shape of each slot."""
        return [[name, list(shape)] for name, shape in zip(self.names, self.bank.shapes, strict=True)]

    def take_out(self) -> None:
        """Replace every chosen Parameter by a read from the bank."""
        modules: dict[int, tuple[nn.Module, dict[str, Reader]]] = {id(self.root): (self.root, {})}
        for slot, group in enumerate(self.places):
            for place in group:
                like = torch.empty(0, dtype=place.parameter.dtype, device=place.parameter.device)
                reader = Reader(self.bank, slot, place.is_transposed, None, like)
                modules.setdefault(id(place.module), (place.module, {}))[1][place.attribute] = reader
        for module, readers in modules.values():
            if self._is_hidden(module):
                for key, reader in readers.items():
                    replace_entry(module, key, reader)  # type: ignore[arg-type]
            else:
                replace_parameters(module, readers, *((self.bank, self.whole) if module is self.root else ()))

    def put_back(self) -> dict[str, nn.Parameter]:
        """Replace every read by a plain Parameter with the value in use, tied as before; return them by name."""
        modules: dict[int, tuple[nn.Module, dict[str, nn.Parameter]]] = {id(self.root): (self.root, {})}
        found = {}
        for group, value, is_trainable in zip(self.places, self.bank.values(), self.is_trainable, strict=True):
            tied: dict[bool, nn.Parameter] = {}
            for place in group:
                if place.is_transposed not in tied:
                    whole = tied[not place.is_transposed].data.t() if tied else _value(place, value)
                    tied[place.is_transposed] = nn.Parameter(whole, requires_grad=is_trainable)
                found[place.name] = tied[place.is_transposed]
                modules.setdefault(id(place.module), (place.module, {}))[1][place.attribute] = found[place.name]
        for module, parameters in modules.values():
            if self._is_hidden(module):
                put_back_entries(module, parameters)  # type: ignore[arg-type]
            else:
                put_back(module, parameters)
        return found

    @contextlib.contextmanager
    def plain(self) -> Iterator[dict[str, nn.Parameter]]:
        """Put plain Parameters back for a while."""
        found = self.put_back()
        try:
            yield found
        finally:
            self.take_out()

    def _is_hidden(self, module: nn.Module) -> bool:
        """Whether PEFT lists a ParameterDict's entries, to set `requires_grad`, which generated tensors have not."""
        return isinstance(self.root, PeftModel) and isinstance(module, nn.ParameterDict)


def _value(place: Place, value: Tensor) -> Tensor:
    """Return a copy of a slot's value as its first place, which is never the transposed one, reads it."""
    reader = place.module.__dict__["_readers"][place.attribute]
    return reader.placed(value).detach().clone(memory_format=torch.contiguous_format)


def generation_of(module: nn.Module) -> Generation | None:
    """Return what `generate` has done to a module, None if nothing."""
    return module.__dict__.get("_generation")


def home(module: nn.Module, places: list[list[Place]]) -> nn.Module:
    """Return the module whose child the generator becomes.

    A module without children, because those that have some may call all of them one after the other; PEFT's do not.
    """
    if isinstance(module, PeftModel):
        return module
    owners = [place.module for group in places for place in group]
    leaves = [m for m in module.modules() if not isinstance(m, CONTAINERS)]
    return next((m for m in [*owners, *leaves] if not any(True for _ in m.children())), module)


def install(generation: Generation) -> None:
    """Put a generator into a module."""
    module = generation.root
    module.__dict__["_generation"] = generation
    home(module, generation.places).add_module(GENERATOR_NAME, generation.bank.generator)
    generation.take_out()


def remove(module: nn.Module) -> None:
    """Undo `install`: leave plain Parameters with the values in use."""
    generation: Generation = module.__dict__.pop("_generation")
    generation.put_back()
    for owner in module.modules():
        if owner._modules.get(GENERATOR_NAME) is generation.bank.generator:
            del owner._modules[GENERATOR_NAME]
