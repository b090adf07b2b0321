"""Any parameters of any module from one generator: `generate`, and what PEFT's methods need beside it."""

from qpa_hf.generating.counts import method_count
from qpa_hf.generating.generate import generate
from qpa_hf.generating.native import load_generated

__all__ = ["generate", "load_generated", "method_count"]
