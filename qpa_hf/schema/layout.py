"""The layout of a generator's checkpoint: which tensors its vector is cut into."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from qpa_hf.messages import shown

MOST_NUMBERS = 2**40  # of all tensors together: 4 TiB, more than any model has
REMEDY = "It is written by the model, and not to be set by hand: save or download the adapter again."
# The field of a method's configuration that is a dimension of some of its tensors.
SIZES = {"LORA": "r", "QPA": "r", "BOTTLENECK": "bottleneck_size"}


def check_layout(layout: Any, is_tied: bool = True) -> None:
    """Refuse a layout that no model has written.

    Args:
        layout: a list of [name, shape, name of the entry that it is the transpose of, or None], with the number of
            experts as a fourth item where several have gradient bases in one tensor.
        is_tied: whether entries have the third item, and may have the fourth.

    Raises:
        ValueError: naming the entry.
    """
    if not isinstance(layout, (list, tuple)) or not layout:
        raise ValueError(f"`layout`={shown(layout)} is not allowed. Leave it out. {REMEDY}")
    shapes: dict[str, list[int]] = {}
    for entry in layout:
        if not (_is_entry(entry, 3 if is_tied else 2) or (is_tied and _is_of_experts(entry))):
            form = "[name, shape, name of the entry it is tied to or null]" if is_tied else "[name, shape]"
            raise ValueError(
                f"`layout` has {shown(entry)}, and an entry is {form}, its shape whole numbers of at least 1. {REMEDY}"
            )
        if entry[0] in shapes:
            raise ValueError(f"`layout` has {shown(entry[0])} twice, and a tensor has one place. {REMEDY}")
        shapes[entry[0]] = list(entry[1])
    if (n_numbers := sum(map(math.prod, shapes.values()))) > MOST_NUMBERS:
        raise ValueError(
            f"`layout` comes to {n_numbers:.1e} values, and at most {MOST_NUMBERS:.1e} are allowed. {REMEDY}"
        )
    # A tie must lead to an entry that is generated itself, and not to another tie, which might lead back.
    owners = {entry[0]: entry[2] for entry in layout if is_tied and entry[2] is not None}
    for key, owner in owners.items():
        if owner in owners or shapes.get(owner) != shapes[key][::-1]:
            raise ValueError(
                f"`layout` ties {shown(key)} to {shown(owner)}, which is not an entry of the transposed shape. "
                f"{REMEDY}"
            )


def _is_entry(entry: Any, n_items: int) -> bool:
    if not isinstance(entry, (list, tuple)) or len(entry) != n_items:
        return False
    name, shape, *owner = entry
    is_shape = isinstance(shape, (list, tuple)) and len(shape) > 0
    return (
        isinstance(name, str)
        and bool(name)
        and is_shape
        and all(type(size) is int and 1 <= size <= MOST_NUMBERS for size in shape)
        and all(one is None or isinstance(one, str) for one in owner)
    )


def _is_of_experts(entry: Any) -> bool:
    """Whether an entry ends with a number of experts, of which each has as many rows or columns as the others."""
    if not isinstance(entry, (list, tuple)) or len(entry) != 4 or not _is_entry(entry[:3], 3):
        return False
    name, shape, _, n_experts = entry
    split = 0 if ".lora_A." in name else 1
    return type(n_experts) is int and n_experts > 1 and len(shape) == 2 and shape[split] % n_experts == 0


def check_bases(layout: Sequence[Sequence[Any]], n_stages: int) -> None:
    """Refuse a layout whose tensors cannot stand on gradient bases: factors come in pairs, and have two dimensions.

    Raises:
        ValueError: naming the entry.
    """
    shapes = {key: shape for key, shape, *_ in layout}
    n_experts = {key: rest[1:] for key, _, *rest in layout}
    for key, shape in shapes.items():
        if ".lora_A." in key:
            other = key.replace(".lora_A.weight", ".lora_B.weight")
            partner = shapes.get(other)
            is_pair = partner is not None and len(shape) == len(partner) == 2 and partner[1] == shape[0]
            if not is_pair or n_experts[key] != n_experts[other]:
                raise ValueError(f"`layout` has no {shown(key)} of two dimensions with its lora_B. {REMEDY}")
            if shape[0] % n_stages:
                raise ValueError(f"`layout` has {shown(key)} of {shape[0]} rows for {n_stages} stages. {REMEDY}")


def check_sizes(config: Any, shapes: Iterable[Sequence[int]]) -> None:
    """Refuse a rank larger than every size of the known tensors, before PEFT builds tensors of that rank.

    Args:
        config: the configuration of the adapter.
        shapes: the shapes of the adapter's tensors, where they are known, or of the base model's.

    Raises:
        ValueError: naming the setting.
    """
    # The number in a file decides how much memory PEFT asks for. A rank of a billion must not get that far.
    name = SIZES.get(str(getattr(config.peft_type, "value", config.peft_type)))
    if name is None:
        return
    largest = max((size for shape in shapes for size in shape), default=0)
    rank = max([getattr(config, name), *(getattr(config, "rank_pattern", None) or {}).values()])
    if rank > largest > 0:  # a model that is sharded may show no sizes
        raise ValueError(
            f"`{name}`={shown(rank)} is more than any dimension of the weights, of which the largest is {largest}. "
            "Set it to less."
        )
