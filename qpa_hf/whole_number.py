"""What counts something is a whole number: one check, and one sentence, for all."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return a setting that counts something as an int; NumPy's are taken too.

    Raises:
        ValueError: if it is no whole number, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"`{name}`={value!r} is not allowed. Set it to a whole number of at least {least}.")
    return int(value)
