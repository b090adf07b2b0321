"""Which Parameters of a module are generated, and every place where each of them stands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from torch import nn
from torch._dynamo import OptimizedModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from qpa_hf.generator import Generator
from qpa_hf.messages import check_kind
from qpa_hf.reading import Place


def select(module: nn.Module, names: str | Sequence[str] | None) -> list[list[Place]]:
    """Return the places of each chosen Parameter; tied ones stand in several.

    Args:
        module: the module that has the Parameters.
        names: the names of Parameters, or of modules, which stand for all that they have; None for everything
            trainable but the modules that PEFT trains and saves whole (`modules_to_save`, a classifier's head).

    Raises:
        ValueError: if a name matches nothing, or a Parameter cannot be generated.
        TypeError: if a Parameter is no float tensor.
    """
    if isinstance(module, (DistributedDataParallel, OptimizedModule)):
        raise ValueError(
            f"{type(module).__name__} has taken the module's parameters already. Call `generate` on the module itself "
            "and wrap it afterwards."
        )
    if any(isinstance(m, Generator) for m in module.modules()):
        raise ValueError(
            f"This {type(module).__name__} is generated already. Name all parameters in one call of `generate`, or "
            "call `materialize` first."
        )
    places = list(_places(module))
    wanted = _named(places, names, module) if names is not None else _trainable(module, places)
    # A tied Parameter is chosen by any of its names, and all of its places then read one slot: generating only one of
    # them would untie it.
    tied: dict[Any, list[Place]] = {}
    for place in places:
        tied.setdefault(_region(place.parameter), []).append(place)
    chosen = [group for group in tied.values() if any(place.name in wanted for place in group)]
    for group in chosen:
        for place in group:
            _check(place)
    _check_held(module, chosen)
    return [_oriented(group) for group in chosen]


def _places(module: nn.Module) -> Iterator[Place]:
    for prefix, owner in module.named_modules():
        is_listed = isinstance(module, PeftModel) and isinstance(owner, nn.ParameterDict)
        for attribute, parameter in owner._parameters.items():
            if parameter is not None:
                yield Place(f"{prefix}.{attribute}".lstrip("."), owner, attribute, is_entry=is_listed)


def _trainable(module: nn.Module, places: list[Place]) -> set[str]:
    # PEFT trains and saves these beside any method, such as a classifier's new head: they are no part of the method.
    wrappers = [m for m in module.modules() if isinstance(m, ModulesToSaveWrapper)]
    kept = {id(p) for wrapper in wrappers for p in wrapper.parameters()}
    wanted = {place.name for place in places if place.parameter.requires_grad and id(place.parameter) not in kept}
    if not wanted:
        raise ValueError(
            f"This {type(module).__name__} has no trainable parameters to generate. Name some with `names`, or set "
            "their `requires_grad`."
        )
    return wanted


def _named(places: list[Place], names: str | Sequence[str], module: nn.Module) -> set[str]:
    wanted: set[str] = set()
    is_list = isinstance(names, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in names)
    check_kind("names", names, (list, tuple, set, frozenset) if is_list else str, "a name or a list of names")
    for name in [names] if isinstance(names, str) else names:
        found = {place.name for place in places if place.name == name or place.name.startswith(f"{name}.")}
        if not found:
            near = difflib.get_close_matches(name, [place.name for place in places], 1)
            hint = f"Did you mean {near[0]!r}?" if near else "See its `named_parameters()`."
            raise ValueError(
                f"`names` has {name!r}, which matches no parameter of this {type(module).__name__}. {hint}"
            )
        wanted |= found
    if not wanted:
        raise ValueError("`names` is empty, so there is nothing to generate. Leave it out for all trainable ones.")
    return wanted


def _region(parameter: nn.Parameter) -> Any:
    """Return a key that two Parameters share if they are the same values in memory."""
    # Shards, lazy, meta and empty Parameters have no memory here to compare, so only their identity tells.
    if isinstance(parameter, DTensor) or is_lazy(parameter) or parameter.is_meta or not parameter.numel():
        return id(parameter)
    return parameter.data_ptr(), parameter.numel()


def _check(place: Place) -> None:
    # Most of these would go wrong later, and in silence: by a stale value, by a gradient that never arrives, or by a
    # change that is overwritten.
    parameter = place.parameter
    owner = place.module
    if is_lazy(parameter):
        raise ValueError(f"{place.name} has no shape yet. Pass a batch through the model first.")
    if not parameter.is_floating_point():
        raise TypeError(
            f"{place.name} is {parameter.dtype}, and only float tensors can be generated. Leave it out of `names`, or "
            "dequantise it."
        )
    if isinstance(parameter, DTensor):
        raise ValueError(f"{place.name} is sharded already. Call `generate` before sharding the model.")
    if parameter.is_meta:
        raise ValueError(f"{place.name} is on the meta device, without values to start from. Load the model first.")
    if parameter._backward_hooks:
        raise ValueError(
            f"{place.name} has a hook that changes its gradient, and a generated tensor has no gradient of its own. "
            "Leave it out of `names`, or remove the hook."
        )
    if getattr(owner, "max_norm", None) is not None:
        raise ValueError(
            f"{place.name} is written in place at each step, because its layer has `max_norm`. Leave it out of "
            "`names`, or set `max_norm`=None."
        )
    if getattr(owner, "sparse", False):
        raise ValueError(f"{place.name} has sparse gradients, which end in its layer. Set `sparse`=False there.")


def _check_held(module: nn.Module, chosen: list[list[Place]]) -> None:
    """Refuse a Parameter that a module also keeps in a plain attribute, where it would be read and never change."""
    names = {id(place.parameter): place.name for group in chosen for place in group}
    for prefix, owner in module.named_modules():
        for attribute, value in vars(owner).items():
            if attribute in ("_parameters", "_flat_weights"):  # recurrent layers' list is made anew
                continue
            for held in _entries(value):
                if id(held) in names:
                    where = f"{prefix}.{attribute}".lstrip(".")
                    raise ValueError(
                        f"{names[id(held)]} also stands in the plain attribute `{where}`, where a generated tensor "
                        "would not arrive. Leave it out of `names`, or look the parameter up where it is used."
                    )


def _entries(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, tuple)) else (value,)


def _oriented(group: list[Place]) -> list[Place]:
    # A Parameter may be tied to the transpose of another: the same memory, with sizes and strides exchanged.
    first = group[0].parameter
    oriented = []
    for place in group:
        parameter = place.parameter
        if (parameter.shape, parameter.stride()) == (first.shape, first.stride()):
            oriented.append(place)
        elif parameter.dim() == 2 and (parameter.t().shape, parameter.t().stride()) == (first.shape, first.stride()):
            oriented.append(place._replace(is_transposed=True))
        else:
            raise ValueError(
                f"{place.name} and {group[0].name} share their values in different shapes, which one generated "
                "tensor cannot have. Leave both out of `names`, or untie them."
            )
    return oriented
