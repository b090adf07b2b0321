"""Sentences about values, paths and other libraries' words: on one line, short, and harmless on a terminal."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from numbers import Integral
from pathlib import Path
from typing import Any

LONGEST = 400  # characters of another's text
LONGEST_VALUE = 120
MOST = 2**63 - 1  # what a tensor's sizes and counts can be
IMPOSSIBLE = (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)  # of a path, whatever lies there


def printable(text: object) -> str:
    r"""Return a text in which Python escapes stand for control, format and other invisible characters.

    Line breaks and tabs stay as they are.

    Example:
        >>> printable("\x1b]0;title\x07 \u202egnp.exe")
        '\\x1b]0;title\\x07 \\u202egnp.exe'
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in shown)


def one_line(text: object) -> str:
    r"""Return another's text as one line of printable characters, cut off where it is long.

    Example:
        >>> one_line("a\n  b")
        'a b'
    """
    return _cut(" ".join(printable(text).split()), LONGEST)


def first_sentence(error: object) -> str:
    """Return the first sentence of another library's message, as `one_line` does, without its full stop.

    Example:
        >>> first_sentence("No such\\nfile. See https://example.com for help.")
        'No such file'
    """
    return one_line(error).partition(". ")[0]


def shown(value: Any) -> str:
    """Return a value as Python writes it, on one line; files and callers may hold values of any size.

    Example:
        >>> shown("a\\nb"), shown(10**6000), len(shown([0] * 1000))
        ("'a\\\\nb'", 'a number of thousands of digits', 120)
    """
    try:
        return _cut(" ".join(printable(repr(value)).split()), LONGEST_VALUE)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"


def check_kind(name: str, value: Any, kinds: type | tuple[type, ...], meant: str) -> None:
    """Refuse an argument of another kind.

    Args:
        name: of the argument.
        value: what was passed.
        kinds: that are allowed.
        meant: the words for them.

    Raises:
        TypeError: if the value is of none of the kinds.

    Example:
        >>> check_kind("path", 5, str, "a path")
        Traceback (most recent call last):
        TypeError: `path`=5 is not allowed. Pass a path.
    """
    if not isinstance(value, kinds):
        raise TypeError(f"`{name}`={shown(value)} is not allowed. Pass {meant}.")


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """Return a setting that counts something as an int; NumPy's are taken too.

    Raises:
        ValueError: if it is no whole number, less than `least`, or more than a tensor's sizes can be.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"`{name}`={shown(value)} is not allowed. Set it to a whole number of at least {least}.")
    if int(value) > MOST:
        raise ValueError(f"`{name}`={shown(value)} is not allowed. Set it to a whole number from {least} to {MOST}.")
    return int(value)


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that this system can look for; nothing need be there.

    Raises:
        ValueError: for a name that is too long, or has characters that no name can have.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in IMPOSSIBLE:
            raise ValueError(f"{shown(str(path))} is no path here ({error.strerror}). Pass another one.") from error
    except ValueError as error:
        raise ValueError(f"{shown(str(path))} is no path here ({one_line(error)}). Pass another one.") from error
    return Path(path)


def one_of(name: str, value: Any, choices: Collection[str | None]) -> Any:
    """Return a setting's value if it is one of those that there are.

    Raises:
        ValueError: with all choices.

    Example:
        >>> one_of("start", "zero", ("identity", "authors"))
        Traceback (most recent call last):
        ValueError: `start`='zero' is not known. Choose one of 'identity', 'authors'.
    """
    if not isinstance(value, (str, type(None))) or value not in choices:
        raise ValueError(f"`{name}`={shown(value)} is not known. Choose one of {', '.join(map(repr, choices))}.")
    return value


def truth_value(name: str, value: Any) -> bool:
    """Return a setting's value if it is a truth value.

    Raises:
        TypeError: if it is of another kind.
    """
    if not isinstance(value, bool):
        raise TypeError(f"`{name}`={shown(value)} is not a truth value. Set it to True or False.")
    return value


def _cut(line: str, most: int) -> str:
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
