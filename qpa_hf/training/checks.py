"""Checks of single settings of a run, before anything is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args

from transformers import TrainingArguments

from qpa_hf.messages import one_line, shown
from qpa_hf.schema import fits
from qpa_hf.schema.kinds import is_number, words

MOST_HINTS = 3  # more names help nobody
# The smallest allowed values. Torch and Trainer would refuse smaller ones, too, but only after the model is loaded.
LEAST = {
    "learning_rate": 0,
    "num_train_epochs": 0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
}


def check_names(given: Iterable[str], known: Iterable[str], where: str, kind: str = "field") -> None:
    """Raise a ValueError for the first name that is not known, with the nearest that is.

    Args:
        given: the names to check.
        known: the names that exist.
        where: the section or command that has the names, for the message.
        kind: the kind of thing that they name, for the message.
    """
    known = list(known)
    for name in map(str, given):  # YAML's keys may be numbers, or true for a bare `on`
        if name not in known:
            near = [f"`{one}`" for one in _nearest(name.lower(), known)]
            either = " or ".join([", ".join(near[:-1]), *near[-1:]] if len(near) > 1 else near)
            hint = f"Did you mean {either}?" if near else f"Known are {'; '.join(sorted(known))}."
            raise ValueError(f"{where} has no {kind} `{one_line(name)}`. {hint}")


def _nearest(name: str, known: Iterable[str]) -> list[str]:
    """Return what a wrong name, in small letters, may stand for: names that begin with it, are like it, or have it."""
    by_lower = {one.lower(): one for one in known}
    begin = [one for one in by_lower if one.startswith(name)]
    alike = difflib.get_close_matches(name, by_lower, 1)
    have = [one for one in by_lower if name in one]
    found = begin or alike or have
    return [by_lower[one] for one in found] if name and len(found) <= MOST_HINTS else []


def check_texts(section: str, values: Mapping[str, Any], lists: Iterable[str]) -> None:
    """Refuse what is neither a text nor, for the fields in `lists`, a list of texts; null is left."""
    for name, value in values.items():
        has_list = name in lists
        items = value if has_list and isinstance(value, list) else [value]
        if value is not None and not all(isinstance(item, str) for item in items):
            allowed = "a name (text) or a list of names" if has_list else "a name (text)"
            raise ValueError(f"`{section}.{name}`={shown(value)} is not allowed. Set it to {allowed}.")


def check_least(name: str, value: Any) -> None:
    """Raise ValueError if a number of `TrainingArguments` is infinite or too small; another kind of value is left."""
    least = LEAST[name]
    if isinstance(value, int | float) and not (is_number(value) and least <= value):
        raise ValueError(
            f"`training.{name}`={shown(value)} is not allowed. Set it to a finite number from {least} on."
        )


def check_training(training: Mapping[str, Any]) -> None:
    """Refuse values of the wrong kind or range: Trainer would find out after the model is loaded."""
    for name in LEAST:
        check_least(name, training.get(name))
    metric = training.get("metric_for_best_model")
    if not (metric is None or isinstance(metric, str) and metric in ("loss", "eval_loss")):
        raise ValueError(
            f"`training.metric_for_best_model`={shown(metric)} is not allowed: such a run evaluates nothing but the "
            "loss. Set it to loss, or leave it out."
        )
    for f in fields(TrainingArguments):
        value = training.get(f.name, f.default)
        kinds = {f.type, *get_args(f.type)}
        if value is None and isinstance(f.default, int | float):
            raise ValueError(f"`training.{f.name}`=null is not allowed. Set it to a value, or leave it out.")
        if isinstance(value, float) and f.type is int:
            raise ValueError(f"`training.{f.name}`={shown(value)} is not allowed. Set it to a whole number.")
        has_other_kinds = str in kinds or kinds.isdisjoint({bool, int, float})
        if not has_other_kinds and not isinstance(value, bool | int | float | None):
            kind = "true or false" if bool in kinds else "a number"
            raise ValueError(f"`training.{f.name}`={shown(value)} is not allowed. Set it to {kind}.")
        if f.name in training and not fits(value, f.type):
            raise ValueError(f"`training.{f.name}`={shown(value)} is not allowed. Set it to {words(f.type)}.")
