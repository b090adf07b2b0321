"""How good a language model is: standard perplexity, and the paper's padded protocol under its own name."""

from qpa_hf.evaluation.documents import read_texts
from qpa_hf.evaluation.perplexity import METRIC_PATH, padded_perplexity, perplexity
from qpa_hf.evaluation.text import text_blocks

__all__ = ["METRIC_PATH", "padded_perplexity", "perplexity", "read_texts", "text_blocks"]
