"""Checkpoints on disk: are they whole, what is in them, and small files beside them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from qpa_hf.files import replacing
from qpa_hf.messages import check_path, one_line

GENERATOR_PREFIX = "base_model.lora_qpa."  # of its numbers' names in a checkpoint
NOT_FINITE = ("nan", "inf", "-inf")  # what `to_json` writes, for JSON has no such numbers
Header = tuple[str, list[int]]  # kind, in safetensors' names, and shape of a tensor
FLOATS = ("F16", "BF16", "F32", "F64")


def check_folder(name: str, what: str) -> None:
    """Refuse a name that can be no Hub id and leads to no directory.

    Raises:
        FileNotFoundError: if there is nothing.
        NotADirectoryError: if it is a file.
        ValueError: if it can be no path either.
    """
    if check_path(name).is_file():
        raise NotADirectoryError(
            f"{one_line(name)} is a file here. Name the {what} by its directory or Hub id, and move a file that "
            "hides a Hub id."
        )
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise FileNotFoundError(f"There is no directory {one_line(name)}. Name the {what} by its directory or Hub id.")


def check_complete(folder: str | Path) -> None:
    """Raise if the weights in `folder` were cut short.

    Raises:
        ValueError: naming the file.
    """
    tensors_in(folder)


def tensors_in(folder: str | os.PathLike[str], name: str = SAFETENSORS_WEIGHTS_NAME) -> dict[str, Header]:
    """Return kind and shape of each tensor of a checkpoint, of which only the header is read; nothing without a file.

    Raises:
        ValueError: if it was cut short, or is no file of tensors.
    """
    weights = Path(folder) / name
    if not weights.exists():
        return {}
    if not weights.is_file():
        raise ValueError(f"{weights} is no file. Save or download the adapter again.")
    try:
        with safe_open(weights, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            return {key: (part.get_dtype(), list(part.get_shape())) for key, part in slices.items()}
    except (SafetensorError, OSError) as error:
        reason = one_line(error)
        raise ValueError(f"{weights} is incomplete or damaged ({reason}). Save or download it again.") from error


def check_tensors(
    folder: str | os.PathLike[str],
    there: Mapping[str, Header],
    expected: Mapping[str, Tensor],
    optional: Collection[str] = (),
    settings: str = CONFIG_NAME,
) -> None:
    """Compare the tensors of a checkpoint with those that its configuration makes, before any is read or made.

    Args:
        folder: the checkpoint, for the message.
        there: kind and shape of each, by name.
        expected: tensors of the same names, on the meta device.
        optional: names that older checkpoints lack.
        settings: name of the configuration's file.

    Raises:
        ValueError: naming the first that is missing, of another kind or shape, or has no place.
    """
    for name in [*expected, *(there.keys() - expected.keys())]:
        if name not in there and name in optional:
            continue
        found = there.get(name)
        needed = [*expected[name].shape] if name in expected else None
        is_kind = found is None or needed is None or (found[0] in FLOATS) == expected[name].is_floating_point()
        # A stage is a scalar in older checkpoints.
        is_shaped = found is not None and needed is not None and (found[1] or [1]) == (needed or [1])
        if found is None or not is_shaped or not is_kind:
            meant = "has no place" if needed is None else f"should be {expected[name].dtype} {needed}"
            raise ValueError(
                f"The weights in {folder} do not fit its {settings}: {name} is {_named_kind(found)} and {meant}. Save "
                "or download both again."
            )


def _named_kind(found: Header | None) -> str:
    return "missing" if found is None else f"{found[0]} {found[1]}"


def check_written(folder: str | Path, names: Collection[str]) -> None:
    """Raise if there are weights in `folder`, but not all of a generator's numbers among them.

    Args:
        folder: may hold weights, in either of PEFT's formats.
        names: of the generator's numbers.

    Raises:
        ValueError: naming the first that is missing.
    """
    safe, other = Path(folder) / SAFETENSORS_WEIGHTS_NAME, Path(folder) / WEIGHTS_NAME
    if safe.exists():
        with safe_open(safe, framework="pt") as file:
            keys = set(file.keys())
    elif other.exists():
        keys = set(torch.load(other, map_location="meta", weights_only=True))
    else:
        return
    if missing := sorted(GENERATOR_PREFIX + name for name in names if GENERATOR_PREFIX + name not in keys):
        raise ValueError(
            f"`state_dict` lacks {missing[0]}, without which {folder} is no adapter. Leave it out of "
            "`save_pretrained`, or pass the model's whole `state_dict()`."
        )


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint.

    Raises:
        FileNotFoundError: if there are no weights in `folder`.
        ValueError: if they were cut short.
    """
    weights = Path(folder) / SAFETENSORS_WEIGHTS_NAME
    if not weights.is_file():
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
    with replacing(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every system
