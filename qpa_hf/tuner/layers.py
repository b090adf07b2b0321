"""PEFT's LoRA modules with their Parameters taken out: a property reads the generated tensor instead.

A plain attribute would go stale, because much code never calls the model's own forward: `generate`, T5's encoder, a
merge. A property cannot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qpa_hf.generator import Bank


class Reader(NamedTuple):
    """Where a module's tensor is found.

    Args:
        bank: holds the generated tensors.
        slot: number of the tensor in the bank.
        is_transposed: whether the slot holds the transpose (adapters tied to an embedding's).
        anchor: the frozen layer beside which the tensor is needed.
    """

    bank: Bank
    slot: int
    is_transposed: bool
    anchor: nn.Module

    def read(self) -> Tensor:
        """Return the tensor on the device of the frozen layer, so that a model spread over GPUs works."""
        tensor = self.bank.read(self.slot)
        weight = getattr(self.anchor, "weight", None)
        if isinstance(weight, Tensor) and weight.device != tensor.device and weight.device.type != "meta":
            tensor = tensor.to(weight.device)
        # Contiguous, so that a matrix product takes the path, and gives the bits, of the materialized tensor.
        return tensor.t().contiguous() if self.is_transposed else tensor


def _generated_property(name: str) -> property:
    return property(lambda self: self.__dict__["_readers"][name].read())


_CLASSES: dict[tuple[type[nn.Module], tuple[str, ...]], type[nn.Module]] = {}


def _generated_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """Return the subclass of `base` in which each parameter of `names` is a property."""
    if (base, names) in _CLASSES:
        return _CLASSES[base, names]

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        return _empty, (base, names), self.__dict__.copy()

    namespace: dict[str, Any] = {name: _generated_property(name) for name in names}
    _CLASSES[base, names] = type(f"Generated{base.__name__}", (base,), namespace | {"__reduce_ex__": reduce})
    return _CLASSES[base, names]


def _empty(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """Rebuild an instance for copy and pickle, which cannot find a dynamic class by its name."""
    cls = _generated_class(base, names)
    return cls.__new__(cls)


def replace_parameters(module: nn.Module, readers: dict[str, Reader]) -> None:
    """Take the named Parameters out of `module` and read them through `readers` from now on."""
    for name in readers:
        del module._parameters[name]
    module.__dict__["_readers"] = readers
    module.__class__ = _generated_class(type(module), tuple(sorted(readers)))


class GeneratedParameterDict(nn.ParameterDict):
    """A ParameterDict (LoRA's embedding factors) some of whose entries are generated.

    Generated entries are found by key, as PEFT looks them up, but not listed among the items: PEFT lists items to set
    `requires_grad` and to move them, neither of which can be done to a generated tensor.
    """

    def _generated(self) -> dict[str, Reader]:
        return self.__dict__.setdefault("_readers", {})

    def __getitem__(self, key: str) -> Any:
        reader = self._generated().get(key)
        return super().__getitem__(key) if reader is None else reader.read()

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in self._generated():
            super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        if self._generated().pop(key, None) is None:
            super().__delitem__(key)
        else:
            del self._keys[key]

    def items(self) -> Any:
        return [(key, self[key]) for key in self._keys if key not in self._generated()]

    def values(self) -> Any:
        return [value for _, value in self.items()]


def replace_entry(entries: nn.ParameterDict, key: str, reader: Reader) -> None:
    """Take entry `key` out of a ParameterDict and read it through `reader` from now on."""
    entries.__class__ = GeneratedParameterDict
    delattr(entries, key)
    entries.__dict__.setdefault("_readers", {})[key] = reader


def shares_storage(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors are views of one storage, on any device (meta tensors have no address to compare)."""
    return torch._C._is_alias_of(tensor, other)  # type: ignore[attr-defined]
