"""Folders for mlx-lm and diffusers: one file of tensors under other names, and what the reader is told of them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qpa_hf.checkpoint import to_json, write_text
from qpa_hf.files import replacing
from qpa_hf.messages import one_line
from qpa_hf.networks.portable import Portable

# How the classes of diffusers' components begin or end, and what pipelines call them.
COMPONENTS = {"UNet": "unet", "Transformer2DModel": "transformer", "Transformer3DModel": "transformer"}
TEXT_ENCODERS = ("CLIPTextModel", "T5EncoderModel")


def write_mlx(adapter: Portable, target: Path) -> None:
    """Write a folder that `mlx_lm` reads with `load_adapters`.

    There A and B are transposed, and one scale multiplies them: 1.

    Args:
        adapter: the pairs by layer.
        target: a folder that is not there yet.

    Raises:
        ValueError: if a layer is a convolution.
        RuntimeError: if what was read back differs.
    """
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in adapter.pairs.items():
        if a.dim() != 2:
            raise ValueError(f"{layer} is a convolution, which mlx-lm adapts in no form. Leave it out of the adapter.")
        tensors |= {f"{layer}.lora_a": a.T.contiguous(), f"{layer}.lora_b": b.T.contiguous()}
    parameters = {"rank": adapter.config.r, "scale": 1.0, "dropout": 0.0, "keys": sorted(adapter.pairs)}
    # Names of layers are whole ones, so that no block need be counted from the last.
    settings = {"fine_tune_type": "lora", "num_layers": 0, "lora_parameters": parameters}
    with replacing(target) as partial:
        partial.mkdir()
        _save(tensors, partial / "adapters.safetensors")
        write_text(partial / "adapter_config.json", to_json(settings) + "\n")


def write_diffusers(adapter: Portable, target: Path) -> None:
    """Write a folder that pipelines of diffusers read with `load_lora_weights`.

    The component's name stands before each layer's. Without an alpha in the file, diffusers takes the rank for it.

    Args:
        adapter: the pairs by layer.
        target: a folder that is not there yet.

    Raises:
        ValueError: if the adapter's configuration names no component of diffusers' as its base.
        RuntimeError: if what was read back differs.
    """
    found = (adapter.config.auto_mapping or {}).get("base_model_class") or ""
    component = next((name for part, name in COMPONENTS.items() if part in found), None)
    if found in TEXT_ENCODERS:
        component = "text_encoder"
    if component is None:
        raise ValueError(
            f"The adapter's base model is {one_line(found) or 'not named'}, and pipelines of diffusers have a "
            f"{', '.join(dict.fromkeys(COMPONENTS.values()))} or text_encoder to adapt. Export an adapter of one of "
            "these, trained without a `task_type`."
        )
    tensors: dict[str, Tensor] = {}
    for layer, (a, b) in adapter.pairs.items():
        key = f"{component}.{layer}.lora"
        tensors |= {f"{key}_A.weight": a.contiguous(), f"{key}_B.weight": b.contiguous()}
    with replacing(target) as partial:
        partial.mkdir()
        _save(tensors, partial / "pytorch_lora_weights.safetensors")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    written = load_file(path)
    if written.keys() != tensors.keys() or not all(torch.equal(written[key], tensors[key]) for key in tensors):
        raise RuntimeError(f"What was written for {path} differs when read back. Try another disk.")
