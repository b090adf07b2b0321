"""Whether values are of the kinds that a dataclass declares, and the words for them."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Collection, Mapping
from enum import Enum
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from qpa_hf.messages import MOST, shown

WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    type(None): "None",
    list: "a list",
    set: "a list",
    tuple: "a list",
    dict: "a dictionary",
}
MOST_NAMES = 12  # of which a message speaks
hints_of = cache(get_type_hints)


def is_number(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value is of a declared kind.

    Sequences stand for one another, as JSON has lists alone; of a literal's choices only the kind counts, for PEFT
    lists patterns among them. What is none of Python's plain kinds is let through.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return any(fits(value, type(choice)) for choice in inner)
    # A kind such as `list[str]` is its origin, `list`, and what its items are.
    kind = origin or kind
    if kind in (list, set, tuple):
        if not isinstance(value, (list, tuple, set)):
            return False
        if kind is tuple and inner and inner[-1] is not Ellipsis:  # of so many items, each of a kind of its own
            return len(value) == len(inner) and all(map(fits, value, inner))
        return not inner or all(fits(item, inner[0]) for item in value)
    if kind is dict:
        return isinstance(value, Mapping) and (not inner or all(fits(item, inner[1]) for item in value.values()))
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) <= MOST
    if kind is float:
        return is_number(value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return isinstance(value, kind) or value in [member.value for member in kind]
    if dataclasses.is_dataclass(kind):
        return isinstance(value, (kind, Mapping))  # type: ignore[arg-type]
    return isinstance(value, kind) if kind in WORDS else True


def words(kind: Any) -> str:
    """Return what a declared kind allows, for a message."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType, Literal):
        kinds = [type(choice) for choice in inner] if origin is Literal else inner
        return " or ".join(dict.fromkeys(words(one) for one in kinds))
    kind = origin or kind
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return f"a list of {' and '.join(map(words, inner))}"
    if inner and kind in (list, set, tuple):
        item = words(inner[0]).removeprefix("a ")
        return f"a list of {'lists' + item.removeprefix('list') if item.startswith('list') else item + 's'}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        names = [repr(member.value) for member in kind]
        return f"one of {', '.join(names[:MOST_NAMES])}{' and others' * (len(names) > MOST_NAMES)}"
    return WORDS.get(kind, "a dictionary")


def check_kinds(values: Mapping[str, Any], declared: type, leave: Collection[str] = ()) -> None:
    """Refuse values of other kinds than a dataclass declares for its fields; names that it lacks are left.

    Args:
        values: the values by the names of their fields.
        declared: the dataclass.
        leave: the names of fields that are checked elsewhere.

    Raises:
        TypeError: naming the field, what it is, and what it can be.
    """
    hints = hints_of(declared)
    for name, value in values.items():
        if name not in hints or name in leave:
            continue
        # PEFT declares whole numbers for scales, and takes any; so do we.
        kind = Union[hints[name], float] if name.endswith("alpha") else hints[name]  # noqa: UP007
        if not fits(value, kind):
            raise TypeError(f"`{name}`={shown(value)} is not allowed. Set it to {words(kind)}.")
