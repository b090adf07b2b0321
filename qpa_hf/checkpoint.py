"""Checkpoints on disk: are they whole, what is in them, and small files beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor


def check_folder(name: str, what: str) -> None:
    """Refuse a name that can be no Hub id and leads to no directory.

    Raises:
        FileNotFoundError: if there is nothing.
        NotADirectoryError: if it is a file.
    """
    if Path(name).is_file():
        raise NotADirectoryError(
            f"{name} is a file here. Name the {what} by its directory or Hub id, and move a file that hides a Hub id."
        )
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise FileNotFoundError(f"There is no directory {name}. Name the {what} by its directory or Hub id.")


def check_complete(folder: str | Path) -> None:
    """Raise if the weights in `folder` were cut short.

    Raises:
        ValueError: naming the file.
    """
    weights = Path(folder) / SAFETENSORS_WEIGHTS_NAME
    if not weights.exists():
        return
    try:
        with safe_open(weights, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights} is incomplete or damaged ({error}). Save or download it again.") from error


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint.

    Raises:
        FileNotFoundError: if there are no weights in `folder`.
        ValueError: if they were cut short.
    """
    weights = Path(folder) / SAFETENSORS_WEIGHTS_NAME
    if not weights.exists():
        raise FileNotFoundError(
            f"There is no {SAFETENSORS_WEIGHTS_NAME} in {folder}. Pass an adapter that was saved with "
            "`safe_serialization`=True, the default."
        )
    check_complete(folder)
    return load_file(weights)


def to_json(value: Any, indent: int | None = 2) -> str:
    """Return a value as JSON, which has no NaN and no infinity: they are written as their names, as text."""
    return json.dumps(_named(value), indent=indent, allow_nan=False)


def _named(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, (list, tuple)) else value


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one step: a reader finds the old text or the new one, never a part."""
    partial = Path(path).with_name(f".{Path(path).name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:  # a full disk, or a directory in its place
        partial.unlink(missing_ok=True)
        raise
