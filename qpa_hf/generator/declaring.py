"""How a setting is declared as a field of a dataclass, and read from there."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from typing import Any, NamedTuple, TypeVar

from qpa_hf.messages import one_of

Check = Callable[[str, Any], Any]
Class = TypeVar("Class", bound=type)


class Setting(NamedTuple):
    """What is declared of a setting beside its name, its type and its default.

    Args:
        help: what the setting is, with unit and source.
        check: takes name and value, and returns the value to keep or raises.
        label: name of the setting's row in a card, and in `inspect`; None if neither shows it.
        of_circuit: whether it says something only where there are circuits.
        may_change: whether it may be another one when a checkpoint is loaded: the same parameters then still give the
            same adapter, but for how circuits are run and measured.
        is_local: whether it belongs to a computer and its account, so that no file sets it and none holds it.
    """

    help: str
    check: Check
    label: str | None
    of_circuit: bool
    may_change: bool
    is_local: bool


def setting(
    default: Any,
    help: str,
    check: Check = lambda name, value: value,
    label: str | None = None,
    of_circuit: bool = False,
    may_change: bool = False,
    is_local: bool = False,
) -> Any:
    """Declare a setting as a dataclass's field; the arguments are a default and those of `Setting`."""
    declared = Setting(help, check, label, of_circuit, may_change or is_local, is_local)
    return field(default=default, metadata={"help": help, "setting": declared})


def settings_in(declaring: Any) -> dict[str, Setting]:
    """Return the settings that a dataclass declares, by name, in their order."""
    return {f.name: f.metadata["setting"] for f in fields(declaring) if "setting" in f.metadata}


def documented(declaring: Class) -> Class:
    """Put the settings of a dataclass into its docstring, where `{settings}` stands."""
    if declaring.__doc__:  # which `python -OO` drops
        declared = [f for f in fields(declaring) if "setting" in f.metadata]

        def entries(indent: re.Match[str]) -> str:
            return "\n".join(_entry(one, indent[1]) for one in declared)

        declaring.__doc__ = re.sub(r"^( *)\{settings\}", entries, declaring.__doc__, flags=re.MULTILINE)
    return declaring


def _entry(declared: Field[Any], indent: str) -> str:
    """Return a setting's lines in a docstring, in PEFT's form.

    Args:
        declared: the field of the setting.
        indent: what its first line begins with: Python 3.13 takes away what all lines of a docstring have in common.
    """
    kind = declared.type if isinstance(declared.type, str) else declared.type.__name__
    kinds = "` or `".join(one for one in kind.split(" | ") if one != "None")
    default = "" if declared.default in (None, MISSING) else f", defaults to `{_quoted(declared.default)}`"
    text = f"{declared.name} (`{kinds}`, *optional*{default}): {declared.metadata['help']}"
    filler = textwrap.TextWrapper(119, indent, indent + " " * 4, break_long_words=False, break_on_hyphens=False)
    return filler.fill(text)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def among(choices: Any, *others: None) -> Check:
    """Return a check for the keys of a table, which is read anew each time: it may grow."""
    return lambda name, value: one_of(name, value, (*others, *choices))


def listed(names: Iterable[str], meanings: Iterable[str] = ()) -> str:
    """Return names in words, each with its meaning."""
    entries = [f"`{_quoted(name)}`" for name in names]
    if meanings:
        entries = [f"{entry} ({meaning})" for entry, meaning in zip(entries, meanings, strict=True)]
    return f"{', '.join(entries[:-1])} or {entries[-1]}"


def with_meanings(table: Mapping[str, Any]) -> str:
    """Return the keys of a table in words, each with its entry's `meaning`."""
    return listed(table, [entry.meaning for entry in table.values()])
