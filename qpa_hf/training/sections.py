"""The sections of a run's settings as they are written: in YAML files, and as `section.field=value`."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qpa_hf.messages import LONGEST_VALUE, one_line
from qpa_hf.schema import parse_yaml, read_text


def read_sections(path: Path) -> dict[str, Any]:
    """Return the sections of a YAML file; what they may hold is checked when all of them are put together."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Name a YAML file of settings, or one of the recipes.")
    text = read_text(path)
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path} is not YAML that can be read: {error}. Correct it.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds {type(values).__name__}, not sections such as `model:` and `data:`.")
    return values


def parse_override(override: str) -> dict[str, Any]:
    """Return what `section.field=value` sets, as sections."""
    name, equals, value = override.partition("=")
    written = one_line(override[:LONGEST_VALUE])
    section, _, key = name.partition(".")
    if not equals or not section:
        raise ValueError(f"`{written}` is not a setting. Write section.field=value, for example adapter.r=8.")
    try:
        parsed = parse_yaml(value)
    except ValueError as error:
        raise ValueError(f"The value of `{written}` is not YAML ({error}). Close its brackets and quotes.") from error
    # On the command line every value is a text, and `1e-3` is meant as a number.
    if isinstance(parsed, str):
        parsed = as_number(parsed)
    return {section: {key: parsed}} if key else {section: parsed}


def as_number(text: str) -> Any:
    """Return the number that a text is, or else the text: YAML takes 1e-3 for a text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Put new values into a mapping, field by field: a section that sets one field keeps its others."""
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def as_no(value: Any) -> Any:
    """Return "no" for False, which is what YAML takes a bare `no` for."""
    if isinstance(value, list):
        return [as_no(item) for item in value]
    return "no" if value is False else value
