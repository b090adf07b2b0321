"""Modules with Parameters taken out: a property reads the generated tensor instead.

A plain attribute would go stale, because much code never calls the model's own forward: `generate`, T5's encoder, a
merge. A property cannot. `torch.nn.utils.parametrize` swaps a module's class for a subclass with properties, too; but
it computes each tensor from a Parameter of its own, where here all of them come from one generator.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from qpa_hf.generator import Bank


class Reader(NamedTuple):
    """Where a module's tensor is found.

    Args:
        bank: the bank that holds the generated tensors.
        slot: the number of the tensor in the bank.
        is_transposed: whether the slot holds the transpose (adapters tied to an embedding's).
        anchor: the frozen layer beside which the tensor is needed, in float32; None if `like` says where.
        like: an empty tensor, moved and converted with its module, as the Parameter would be.
    """

    bank: Bank
    slot: int
    is_transposed: bool
    anchor: nn.Module | None
    like: Tensor | None = None

    def read(self) -> Tensor:
        """Return the tensor on the device where it is needed, so that a model spread over GPUs works."""
        return self.placed(self.bank.read(self.slot))

    def placed(self, tensor: Tensor) -> Tensor:
        """Return the slot's tensor on the device where it is needed."""
        if self.like is not None and (tensor.dtype, tensor.device) != (self.like.dtype, self.like.device):
            tensor = tensor.to(self.like)
        weight = getattr(self.anchor, "weight", None)
        if isinstance(weight, Tensor) and weight.device != tensor.device and weight.device.type != "meta":
            tensor = tensor.to(weight.device)
        # Contiguous, so that a matrix product takes the path, and gives the bits, of the materialized tensor.
        return tensor.t().contiguous() if self.is_transposed else tensor


def _generated_property(name: str, base: type[nn.Module]) -> property:
    def read(self: nn.Module) -> Tensor:
        return self.__dict__["_readers"][name].read()

    # torch.compile steps out of its graph at recurrent layers, and would make a graph of each of their reads.
    return property(torch.compiler.disable(read) if issubclass(base, nn.RNNBase) else read)


def _move(readers: dict[str, Reader], fn: Callable[[Tensor], Tensor]) -> None:
    """Let readers follow `module.to(...)`."""
    for name, reader in readers.items():
        if reader.like is not None:
            readers[name] = reader._replace(like=fn(reader.like))


_CLASSES: dict[tuple[Any, ...], type[nn.Module]] = {}


def refuse_replica(module: nn.Module) -> None:
    """Raise in one of `nn.DataParallel`'s copies of a module.

    Raises:
        RuntimeError: saying what to use instead.
    """
    if module.__dict__.get("_is_replica"):
        raise RuntimeError(
            "QPA does not work under nn.DataParallel, whose copies do not share the generated tensors. Start one "
            "process for each GPU with torchrun (DistributedDataParallel), or make one GPU visible."
        )


class Forwards(Protocol):
    """What is told when a forward of the whole model begins and ends: a bank, or those of several adapters."""

    def begin_forward(self) -> None: ...

    def end_forward(self) -> None: ...


class ModelRoot:
    """Marks the root of a model, which tells the bank of each forward of the whole model."""


def _generated_class(
    base: type[nn.Module], names: tuple[str, ...], root_class: type[ModelRoot] | None
) -> type[nn.Module]:
    """Return the subclass of `base` in which each parameter of `names` is a property.

    That of a model's root tells the bank of each forward, and not in hooks, which torch.compile runs apart.
    """
    # Modules of one kind share a class, as they did before: with one for each module, torch.compile would guard on all
    # of these classes, and compile every layer apart.
    if (base, names, root_class) in _CLASSES:
        return _CLASSES[base, names, root_class]

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        return _empty, (base, names, root_class), self.__getstate__().copy()

    # `_apply` is what `.to(...)`, `.half()` and `.cuda()` come down to.
    def apply(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
        _move(self.__dict__["_readers"], fn)
        return base._apply(self, fn, recurse)

    @functools.wraps(base.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        refuse_replica(self)
        bank = self.__dict__["_bank"]
        try:
            bank.begin_forward()
            return base.forward(self, *args, **kwargs)
        finally:
            bank.end_forward()

    namespace: dict[str, Any] = {name: _generated_property(name, base) for name in names}
    namespace |= {"__reduce_ex__": reduce, "_apply": apply}
    if issubclass(base, nn.RNNBase):
        namespace |= RECURRENT
    if root_class is None:
        _CLASSES[base, names, root_class] = type(f"Generated{base.__name__}", (base,), namespace)
    else:
        # Models are known by their class's name to other libraries.
        namespace |= {"forward": forward, "__module__": base.__module__, "__qualname__": base.__qualname__}
        _CLASSES[base, names, root_class] = type(base.__name__, (root_class, base), namespace)
    return _CLASSES[base, names, root_class]


# A recurrent layer keeps a list of its Parameters, and for cuDNN lays them out anew in place.
RECURRENT: dict[str, Any] = {
    "_flat_weights": property(
        lambda self: [getattr(self, name, None) for name in self._flat_weights_names], lambda self, weights: None
    ),
    "flatten_parameters": lambda self: None,
}


def _empty(base: type[nn.Module], names: tuple[str, ...], root_class: type[ModelRoot] | None) -> nn.Module:
    """Rebuild an instance for copy and pickle, which cannot find a dynamic class by its name."""
    cls = _generated_class(base, names, root_class)
    return cls.__new__(cls)


def replace_parameters(
    module: nn.Module,
    readers: dict[str, Reader],
    bank: Forwards | None = None,
    root_class: type[ModelRoot] | None = None,
) -> None:
    """Take the named Parameters out of `module` and read them through `readers` from now on.

    Args:
        module: the module that has the Parameters.
        readers: the readers by the Parameters' names.
        bank: the bank to tell when a forward of this module begins and ends, if it is the root of a model.
        root_class: the class whose behaviour the root of a model takes on; None for a part of one.
    """
    # The saved state of an optimizer goes by the order of Parameters, so the way back restores it.
    module.__dict__["_parameter_order"] = tuple(module._parameters)
    for name in readers:
        del module._parameters[name]
    module.__dict__["_readers"] = readers
    module.__dict__["_bank"] = bank
    module.__dict__.pop("_flat_weights", None)
    module.__class__ = _generated_class(type(module), tuple(sorted(readers)), root_class)


def reader_of(module: nn.Module, name: str) -> Reader:
    """Return what reads a tensor that was taken out of a module."""
    return module.__dict__["_readers"][name]


def put_back(module: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    """Undo `replace_parameters`: give a module plain Parameters, in the order that it had them."""
    del module.__dict__["_readers"], module.__dict__["_bank"]
    module.__class__ = type(module).__bases__[-1]
    _register(module, parameters)
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


def _register(module: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    every = {**module._parameters, **parameters}
    order = module.__dict__.pop("_parameter_order")
    module._parameters.clear()
    for name in [*(n for n in order if n in every), *(n for n in every if n not in order)]:
        module._parameters[name] = every[name]


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

    # PEFT writes every entry back after it has moved it. A generated one has no place to write to, and is left alone.
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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GeneratedParameterDict:
        _move(self._generated(), fn)
        return super()._apply(fn, recurse)


def replace_entry(entries: nn.ParameterDict, key: str, reader: Reader) -> None:
    """Take entry `key` out of a ParameterDict and read it through `reader` from now on."""
    entries.__dict__.setdefault("_parameter_order", tuple(entries._parameters))
    entries.__class__ = GeneratedParameterDict
    delattr(entries, key)
    entries.__dict__.setdefault("_readers", {})[key] = reader


def put_back_entries(entries: nn.ParameterDict, parameters: dict[str, nn.Parameter]) -> None:
    """Undo `replace_entry`: give a ParameterDict whose generated entries these are plain Parameters."""
    del entries.__dict__["_readers"]
    entries.__class__ = nn.ParameterDict
    _register(entries, parameters)
