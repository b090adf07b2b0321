"""A trained adapter in the formats of other readers than PEFT: GGUF (llama.cpp), MLX, diffusers."""

from qpa_hf.export.export import FORMATS, export

__all__ = ["FORMATS", "export"]
