"""Texts as blocks of tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


def text_blocks(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], length: int) -> Tensor:
    """Return the texts' tokens end to end, an end-of-text token before each, cut into blocks without padding.

    Args:
        tokenizer: turns texts into tokens.
        texts: documents; empty ones are left out.
        length: tokens per block.

    Returns:
        Token ids, shape (n_blocks, length); the rest that fills no block is dropped.

    Raises:
        ValueError: if the tokens do not fill one block.
    """
    documents = [text for text in texts if text.strip()]
    encoded = tokenizer(documents, verbose=False)["input_ids"] if documents else []
    start = tokenizer.bos_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    before = [] if start is None else [start]
    stream = [token for ids in encoded for token in (*before, *ids)]
    n_blocks = len(stream) // length
    if n_blocks == 0:
        raise ValueError(
            f"The text has {len(stream)} tokens, fewer than one block of {length}. Use more text or a smaller "
            "block length."
        )
    return torch.tensor(stream[: n_blocks * length]).view(n_blocks, length)
