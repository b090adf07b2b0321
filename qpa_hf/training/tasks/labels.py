"""The classes of labelled examples: their names, and which examples are evaluated on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch

from qpa_hf.messages import shown
from qpa_hf.reproducible import seeded
from qpa_hf.training.data import VALIDATION_SHARE, check_enough

MOST_LABELS = 10  # that a message names
Example = TypeVar("Example")


def label_names(labels: Iterable[str], base: Iterable[str], setting: str) -> tuple[str, ...]:
    """Return the names of the classes in order: the base model's own if it has just these, whose head then serves.

    Args:
        labels: those of the examples to train on.
        base: the names that the base model's configuration has.
        setting: the setting that names the column or folder, for messages.

    Raises:
        ValueError: if there is only one class.
    """
    found = set(labels)
    if len(found) < 2:
        raise ValueError(
            f"All examples to train on have the label {shown(min(found))}, and one class is nothing to learn. Add "
            f"examples of another one, or check {setting}."
        )
    own = tuple(base)
    if found == set(own) and len(own) == len(found):
        return own
    return tuple(sorted(found, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name)))


def check_known(labels: Iterable[str], names: Sequence[str], where: str) -> None:
    """Raise ValueError if examples have labels that are not among the names of the classes trained on."""
    unknown = sorted(set(labels) - set(names))
    if unknown:
        known = ", ".join(map(shown, names[:MOST_LABELS])) + (", ..." if len(names) > MOST_LABELS else "")
        raise ValueError(
            f"{where} has the label {shown(unknown[0])}, which no example to train on has: they have {known}. Train "
            "with examples of it, or leave it out."
        )


def parted(examples: Sequence[Example], labels: Sequence[str], unit: str) -> tuple[list[Example], list[Example]]:
    """Return the examples to train on, and a tenth of each class, drawn with a fixed seed, to evaluate on.

    Tables are often sorted by class, so that their end would hold only one.

    Raises:
        ValueError: if no class has ten examples.
    """
    check_enough(len(examples), unit)
    order = torch.randperm(len(examples), generator=seeded(0, "validation")).tolist()
    n_left = {name: labels.count(name) // VALIDATION_SHARE for name in set(labels)}
    kept = set()
    for i in order:
        if n_left[labels[i]]:
            n_left[labels[i]] -= 1
            kept.add(i)
    if not kept:
        raise ValueError(
            f"No class has {VALIDATION_SHARE} {unit}, a tenth of which is to be evaluated on. Use more, or name "
            "`data.validation`."
        )
    return [one for i, one in enumerate(examples) if i not in kept], [examples[i] for i in sorted(kept)]
