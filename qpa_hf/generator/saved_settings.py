"""Settings beside a generator's numbers in a checkpoint: with others the same parameters give another adapter."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from qpa_hf.messages import shown


def as_bytes(settings: dict[str, Any]) -> Tensor:
    """Return settings as JSON in bytes, which a state dict can hold."""
    return torch.tensor(bytearray(json.dumps(settings).encode()), dtype=torch.uint8)


def check_same(settings: dict[str, Any], saved: Tensor) -> None:
    """Refuse a checkpoint of a generator with other settings.

    Args:
        settings: the generator's settings, by their names in a configuration, and its layout.
        saved: the bytes in the checkpoint. What is no settings at all, as in the difference of two checkpoints, says
            nothing.

    Raises:
        ValueError: naming the settings that differ.
    """
    here = json.loads(json.dumps(settings))
    try:
        there = json.loads(bytes(saved.to(torch.uint8).flatten().tolist()))
    except (ValueError, RecursionError):
        return
    if not isinstance(there, dict):
        return
    if differing := [name for name in here if there.get(name, here[name]) != here[name]]:
        if "layout" in differing:
            raise ValueError(
                "The checkpoint generates tensors of other names or shapes than this adapter. Load it with "
                "`from_pretrained`, or build the adapter with its `target_modules` and ranks."
            )
        pairs = " and ".join(f"`{name}` {shown(there[name])} there and {here[name]!r} here" for name in differing)
        raise ValueError(
            f"The checkpoint is of a generator with other settings: {pairs}. Load it with `from_pretrained`, or "
            "build the adapter with its settings."
        )
