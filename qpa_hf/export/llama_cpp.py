"""An adapter as a GGUF file, llama.cpp's format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from transformers import AutoConfig

from qpa_hf.checkpoint import check_folder
from qpa_hf.files import replacing
from qpa_hf.messages import one_line
from qpa_hf.networks.portable import Portable


class Family(NamedTuple):
    """How llama.cpp has a family of models.

    Args:
        arch: its name for it.
        is_interleaved: whether it holds rotated queries and keys with the halves of each head interleaved.
    """

    arch: str
    is_interleaved: bool = False


FAMILIES = {  # by transformers' `model_type`
    "llama": Family("llama", is_interleaved=True),
    "mistral": Family("llama", is_interleaved=True),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "gpt2": Family("gpt2"),
}


def write_gguf(adapter: Portable, target: Path, base: str | os.PathLike[str] | None) -> None:
    """Write a GGUF file that llama.cpp adds to a base model, with names and layout of that one.

    Args:
        adapter: the pairs by layer.
        target: the file.
        base: directory or Hub id of the base model; if None, the one that the adapter names.

    Raises:
        ImportError: without the extra `gguf`.
        ValueError: if the base's family is not known here, or has no such layer there.
        RuntimeError: if what was read back differs.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError("`to`='gguf' needs pip install 'qpa-hf[gguf]'.") from error
    config = _base_config(adapter, base)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise ValueError(
            f"The base model is of the family {one_line(config.model_type)!r}, and GGUF is written here for "
            f"{', '.join(FAMILIES)}. Write `materialize(..., portable=True)`, and give that to llama.cpp's "
            "convert_lora_to_gguf.py."
        )
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    arrays: dict[str, np.ndarray] = {}
    for layer, (a, b) in adapter.pairs.items():
        name = names.get_name(layer)
        if name is None or a.dim() != 2 or name == "token_embd" or name == "output" and config.tie_word_embeddings:
            raise ValueError(
                f"{one_line(layer)} is no linear layer with weights of its own in llama.cpp. Merge the adapter into "
                "its base model (`merge_and_unload()` and `save_pretrained`), and convert that."
            )
        if family.is_interleaved:
            b = _interleaved(layer, b, config)
        arrays |= {f"{name}.weight.lora_a": a.numpy(), f"{name}.weight.lora_b": b.contiguous().numpy()}
    with replacing(target) as partial:
        writer = gguf.GGUFWriter(partial, family.arch)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.config.lora_alpha))
        for key, array in arrays.items():
            writer.add_tensor(key, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        written = {tensor.name: tensor.data for tensor in gguf.GGUFReader(partial).tensors}
        if written.keys() != arrays.keys() or not all(np.array_equal(written[key], arrays[key]) for key in arrays):
            raise RuntimeError(f"What was written for {target} differs when read back. Try another disk.")


def _base_config(adapter: Portable, base: str | os.PathLike[str] | None) -> Any:
    name = os.fspath(base or adapter.config.base_model_name_or_path or "")
    if not name:
        raise ValueError("The adapter does not name its base model. Pass its directory or Hub id as `base`.")
    check_folder(name, "base model")
    return AutoConfig.from_pretrained(name)


def _interleaved(layer: str, b: Tensor, config: Any) -> Tensor:
    """Return B with its rows where llama.cpp expects those of queries and keys.

    transformers rotates the first half of a head against the second; llama.cpp's Llama rotates neighbours. A head of
    four rows (0, 1, 2, 3) becomes (0, 2, 1, 3).
    """
    n_heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(layer.split(".")[-1])
    if n_heads is None:
        return b
    return b.view(n_heads, 2, -1, b.shape[1]).transpose(1, 2).reshape(b.shape)
