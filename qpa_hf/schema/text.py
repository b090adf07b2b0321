"""Text, JSON and YAML from a file that anybody may have written: bounded in size, depth and count."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml

from qpa_hf.messages import one_line, shown

# A layout of fifty thousand tensors fits; Python needs up to twenty times a text's bytes for the values in it.
MOST_BYTES = 8 * 2**20
MOST_DEPTH = 32  # copying and printing a value recurse more deeply than reading it
MOST_VALUES = 2_000_000
MOST_YAML_CHARACTERS = 2**18  # read in some seconds
MOST_YAML_VALUES = 20_000  # with each alias counted as often as it stands there, of which a few lines make billions
AGAIN = "Save or download it again."


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Put a file's name before what is said of its content, which is a bad value whatever was wrong with it."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {one_line(error)}") from error


def read_text(path: str | Path) -> str:
    """Return the content of a text file.

    Raises:
        FileNotFoundError: if it is missing, or no file.
        ValueError: if it is too large, or not text in UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Check its name.")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, and such a file has at most {MOST_BYTES:,}. {AGAIN}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not text in UTF-8 ({error}). Convert it, or save or download it again."
        ) from error


def read_object(path: str | Path, remedy: str = AGAIN) -> dict[str, Any]:
    """Return the JSON object in a file.

    Args:
        path: the path of the file.
        remedy: the advice that a message gives about a damaged file.

    Raises:
        FileNotFoundError: if it is missing, or no file.
        ValueError: if it holds anything else.
    """
    return parse_object(read_text(path), str(path), remedy)


def parse_object(text: str, where: str, remedy: str = AGAIN) -> dict[str, Any]:
    """Return the JSON object that a text is: with each name once, and numbers that are finite.

    Args:
        text: the JSON.
        where: the file that holds it, for messages.
        remedy: the advice that a message gives about a damaged file.

    Raises:
        ValueError: if it is anything else.
    """
    # Python takes what JSON does not have: NaN, and the last of several equal names, where another reader takes the
    # first.
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError(f"{where} is not JSON that can be read (it is nested too deeply). {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({one_line(error)}). {remedy}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where} holds {shown(value)} and not a JSON object. {remedy}")
    if fault := _fault(value, MOST_VALUES):
        raise ValueError(f"{where} {fault}. {remedy}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_twice(name for name, _ in pairs)
    return dict(pairs)


def _refuse_twice(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"it has {shown(name)} twice")
        seen.add(name)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _fault(value: Any, most: int) -> str | None:
    """Return what is wrong with a tree of values, whatever it stands for; None if nothing."""
    # A list of what is left to look at, in place of a recursion, which a value that is nested deeply enough would
    # exhaust.
    n_values = 0
    rest = [(value, 0)]
    while rest:
        item, depth = rest.pop()
        n_values += 1
        if depth > MOST_DEPTH:
            return f"is nested more than {MOST_DEPTH} levels deep"
        if n_values > most:
            return f"holds more than {most:,} values"
        if isinstance(item, dict):
            rest += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, (list, tuple, set)):
            rest += [(inner, depth + 1) for inner in item]
        elif isinstance(item, float) and math.isinf(item) and most == MOST_VALUES:
            return "holds a number that is too large for a float"
        elif isinstance(item, str) and not _is_unicode(item):
            return f"holds {shown(item)}, which is not Unicode text"
    return None


def _is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which JSON and YAML can spell and no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Loader(yaml.SafeLoader):
    """YAML's plain values, each name once in a mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        _refuse_twice(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the value that a text in YAML stands for.

    Raises:
        ValueError: saying why it stands for none, without the text's name.
    """
    if len(text) > MOST_YAML_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters, and settings have at most {MOST_YAML_CHARACTERS:,}")
    try:
        value = yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # The last of tags that do not fit their texts, such as `!!bool maybe`.
        raise ValueError(one_line(error)) from error
    if fault := _fault(value, MOST_YAML_VALUES):
        raise ValueError(f"it {fault}")
    return value
