"""Gradient bases in a file, so that a second run need not find them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qpa_hf.files import replacing
from qpa_hf.messages import one_line

METHOD = "preconditioned mean gradient"  # how cached bases were found


def read_bases(path: Path, layers: Mapping[str, Sequence[int]], n_numbers: int) -> Tensor:
    """Return the bases of one stage from a file.

    Args:
        path: the file.
        layers: shape of A by the layers' names, in the order of the bases.
        n_numbers: count of all numbers of the stage's bases.

    Raises:
        ValueError: if the file holds the bases of other layers, or is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("layers")
            if found != _identity(layers):
                raise ValueError(
                    f"{path} holds the bases of other layers or ranks, or an older version's. Pass another file, or "
                    "remove this one."
                )
            buffer = file.get_tensor("basis")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is damaged ({one_line(error)}). Remove it, so that the bases are found again."
        ) from error
    if buffer.shape != (n_numbers,) or buffer.dtype != torch.float32:
        raise ValueError(
            f"{path} is damaged (it holds {tuple(buffer.shape)} numbers of {buffer.dtype}, not {n_numbers}). Remove "
            "it, so that the bases are found again."
        )
    return buffer


def write_bases(path: Path, buffer: Tensor, layers: Mapping[str, Sequence[int]]) -> None:
    """Write the bases of one stage to a file, in one step."""
    with replacing(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"basis": buffer.cpu()}, partial, metadata={"layers": _identity(layers)})


def _identity(layers: Mapping[str, Sequence[int]]) -> str:
    return json.dumps([METHOD, *([name, *shape] for name, shape in layers.items())])
