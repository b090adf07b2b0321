"""`export`: the portable form of an adapter, written as another reader wants it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft import LoraConfig

from qpa_hf.checkpoint import read_weights
from qpa_hf.export.folders import write_diffusers, write_mlx
from qpa_hf.export.llama_cpp import write_gguf
from qpa_hf.materialize import materialize
from qpa_hf.messages import check_kind, check_path, shown
from qpa_hf.networks.plain import Plain
from qpa_hf.networks.portable import Portable, pairs_of, portable_form
from qpa_hf.schema import adapter_settings

FORMATS: dict[str, Callable[[Portable, Path, Any], None]] = {
    "gguf": lambda adapter, target, base: write_gguf(adapter, target, base),
    "mlx": lambda adapter, target, _: write_mlx(adapter, target),
    "diffusers": lambda adapter, target, _: write_diffusers(adapter, target),
}


def export(
    model_or_path: Any,
    path: str | os.PathLike[str],
    to: str,
    base: str | os.PathLike[str] | None = None,
    adapter_name: str = "default",
) -> Path:
    """Write an adapter for another reader than PEFT, and read it back to compare.

    What is written is the portable form (see `materialize`), in float32:

    - `"gguf"`: one file for llama.cpp (`--lora`), for bases of the families in `llama_cpp.FAMILIES`. llama.cpp's own
      `convert_lora_to_gguf.py` knows more of them, and reads what `materialize(..., portable=True)` writes.
    - `"mlx"`: a folder for mlx-lm (`--adapter-path`), for bases whose layers have the same names there, as Llama's do.
    - `"diffusers"`: a folder for `load_lora_weights` of a diffusers pipeline.

    Args:
        model_or_path: a `PeftModel` with a QPA adapter, the folder of a native one, or that of a plain LoRA.
        path: what to write: a file that ends with .gguf, or else a new folder.
        to: a key of `FORMATS`.
        base: directory or Hub id of the base model, of which the configuration is read; for GGUF alone. If None, the
            one that the adapter names.
        adapter_name: which adapter of the model, or of the native folder.

    Returns:
        The path.

    Raises:
        TypeError: if `model_or_path` is neither a PEFT model nor a path.
        ValueError: if the format is not known, the adapter or its base has no such form, or `path` is taken.
        ImportError: for GGUF without the extra `gguf`.
        RuntimeError: if what was read back differs from what was written; nothing is left at `path`.
    """
    if to not in FORMATS:
        raise ValueError(f"`to`={shown(to)} is not known. Use one of {', '.join(map(repr, FORMATS))}.")
    check_kind("path", path, (str, os.PathLike), "a path to write to")
    target = check_path(path).resolve()
    _check_free(target, to)
    plain = portable_form(_plain(model_or_path, adapter_name))
    pairs = {layer: (plain.tensors[a].float(), plain.tensors[b].float()) for layer, (a, b) in pairs_of(plain).items()}
    FORMATS[to](Portable(pairs, plain.config), target, base)
    return target


def _check_free(target: Path, to: str) -> None:
    is_file = to == "gguf"
    if is_file != (target.suffix == ".gguf"):
        ending = "ends with .gguf" if is_file else "is a folder's name"
        raise ValueError(f"{target} is no place for `to`={to!r}. Pass a path that {ending}.")
    if target.exists() and not (is_file and target.is_file()):
        raise ValueError(f"{target} is there already. Pass another path.")
    if not target.parent.is_dir():
        raise ValueError(f"There is no directory {target.parent}. Make it, or pass another path.")


def _plain(source: Any, adapter_name: str) -> Plain:
    """Return the adapter as PEFT has it; one without a generator is read as it is."""
    if isinstance(source, (str, os.PathLike)) and adapter_settings(check_path(source))["peft_type"] == "LORA":
        return _read(Path(source))
    with tempfile.TemporaryDirectory(prefix="qpa_hf_export_") as place:
        return _read(materialize(source, Path(place) / "adapter", adapter_name))


def _read(folder: Path) -> Plain:
    return Plain(read_weights(folder), LoraConfig.from_pretrained(str(folder)), None)
