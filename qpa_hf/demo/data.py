"""The demo's text: the Python documentation that comes with every CPython, split by topic."""

from __future__ import annotations

import hashlib
from pydoc_data.topics import topics

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

HELD_OUT_SHARE = 5  # one topic in so many, chosen by a hash of its name


def is_held_out(topic: str) -> bool:
    """Whether a topic belongs to the held-out part; depends on its name alone."""
    return hashlib.sha256(topic.encode()).digest()[0] % HELD_OUT_SHARE == 0


def blocks(tokenizer: PreTrainedTokenizerBase, held_out: bool) -> Tensor:
    """Return one part of the documentation as token blocks, shape (n_blocks, context length), no padding."""
    texts = [topics[name] for name in sorted(topics) if is_held_out(name) == held_out]
    encoded = tokenizer(texts, verbose=False)["input_ids"]
    stream = [token for ids in encoded for token in (tokenizer.eos_token_id, *ids)]
    length = tokenizer.model_max_length
    n_blocks = len(stream) // length
    return torch.tensor(stream[: n_blocks * length]).view(n_blocks, length)
