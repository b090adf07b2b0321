"""The demo's text: the Python documentation that comes with every CPython, split by topic."""

from __future__ import annotations

import hashlib
from functools import cache
from pydoc_data.topics import topics

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qpa_hf.evaluation import text_blocks

HELD_OUT_SHARE = 5  # one topic in so many, chosen by a hash of its name
SALT = "0"  # goes before the name; the first of "0", "1", ... tried: a fifth of the topics, and 19 % of the text


def is_held_out(topic: str) -> bool:
    """Whether a topic belongs to the held-out part; depends on its name alone."""
    return hashlib.sha256(f"{SALT}{topic}".encode()).digest()[0] % HELD_OUT_SHARE == 0


def paragraphs(text: str) -> set[str]:
    """Return the distinct paragraphs of a text, white space made uniform."""
    return {" ".join(block.split()) for block in text.split("\n\n") if block.strip()}


@cache
def distinct_topics() -> tuple[str, ...]:
    """Return the topics' names, in order, without those whose text is part of a larger topic.

    The chapter "compound" contains all of "if", "try" and "function", for example. With both kept, most of the
    held-out text would be in the training text, word for word.
    """
    parts = {name: paragraphs(text) for name, text in topics.items()}
    # From the largest topic on, a topic is kept if less than half of its paragraphs stand in one that was kept before.
    by_size = sorted(topics, key=lambda name: (-len(topics[name]), name))
    kept: list[str] = []
    for name in by_size:
        if all(2 * len(parts[name] & parts[larger]) < len(parts[name]) for larger in kept):
            kept.append(name)
    return tuple(sorted(kept))


def blocks(tokenizer: PreTrainedTokenizerBase, held_out: bool) -> Tensor:
    """Return one part of the documentation as token blocks, shape (n_blocks, context length), no padding."""
    texts = [topics[name] for name in distinct_topics() if is_held_out(name) == held_out]
    return text_blocks(tokenizer, texts, tokenizer.model_max_length)
