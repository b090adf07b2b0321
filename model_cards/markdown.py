"""Text in Markdown: what a template says itself is structure, what is filled in is text and nothing else."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jinja2
from huggingface_hub import CardData, ModelCard

from qpa_hf.messages import one_line

ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
# An underscore within a word, as in `learning_rate`, emphasises nothing.
ACTIVE = re.compile(r"[\\`*\[\]|~$<>&]|(?<![^\W_])_|_(?![^\W_])")
PLAIN_NAME = re.compile(r"[\w.-]+")


class Markdown(str):
    """Text that is Markdown already, which a template takes as it is."""

    __slots__ = ()


def in_markdown(value: object) -> Markdown:
    """Return a value as one line of Markdown that shows it; every value that a template fills in goes through here."""
    if isinstance(value, Markdown):
        return value
    return Markdown(ACTIVE.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), one_line(value)))


def listed(values: Iterable[object]) -> Markdown:
    """Return values one after the other, with commas."""
    return Markdown(", ".join(map(in_markdown, values)))


def named(name: object) -> Markdown:
    """Return a name set as code, if it is made of the characters that names are made of."""
    shown = one_line(name)
    return Markdown(f"`{shown}`") if PLAIN_NAME.fullmatch(shown) else in_markdown(name)


def in_code(text: object) -> Markdown:
    """Return a text as a literal of Python, in double quotes where it has none itself."""
    literal = repr(str(text))
    return Markdown(literal if '"' in literal else f'"{literal[1:-1]}"')


def rounded(value: Any) -> Any:
    """Return a number with the digits that a reader can use, as text; anything else as it is.

    Four digits, and all of those before the point: 34.9543263501792 is 34.95, 12345.67 is 12346.
    """
    if not isinstance(value, float):
        return value
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def render_part(template: str, values: Mapping[str, object]) -> str:
    """Return what a template makes of values: Jinja, and Markdown around it."""
    return _compiled(template).render(values)


def render(data: CardData, template: str, **values: object) -> ModelCard:
    """Return the card that a template makes of values.

    Args:
        data: the header, which a YAML dumper writes.
        template: of the whole card.
        values: what it fills in.
    """
    return ModelCard(render_part(template, values | {"card_data": Markdown(data.to_yaml())}))


@functools.cache
def _compiled(template: str) -> jinja2.Template:
    environment = jinja2.Environment(finalize=in_markdown)
    environment.filters["listed"] = listed
    environment.filters["rounded"] = rounded
    return environment.from_string(template)
