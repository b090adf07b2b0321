"""Any parameters of any module from one generator: `generate`, and what PEFT's methods need beside it."""

from qpa_hf.networks.counts import method_count
from qpa_hf.networks.generate import generate
from qpa_hf.networks.load import load_generated

__all__ = ["generate", "load_generated", "method_count"]
