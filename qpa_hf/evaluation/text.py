"""Texts as blocks of tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qpa_hf.messages import whole_number


def text_blocks(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], length: int) -> Tensor:
    """Return the texts' tokens end to end, one mark of a beginning before each, cut into blocks without padding.

    Args:
        tokenizer: the tokenizer of the model.
        texts: the documents; empty ones are left out.
        length: the number of tokens of each block.

    Returns:
        The token ids, shape (n_blocks, length); the rest that fills no block is dropped.

    Raises:
        ValueError: if the tokens do not fill one block, or `length` is no whole number of at least 1.
    """
    length = whole_number("length", length)
    documents = [text for text in texts if text.strip()]
    # Some tokenizers put a mark before each text by themselves; two in a row would be one free prediction each.
    encoded = tokenizer(documents, add_special_tokens=False, verbose=False)["input_ids"] if documents else []
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    before = [] if start is None else [start]
    stream = [token for ids in encoded for token in (*before, *ids)]
    n_blocks = len(stream) // length
    if n_blocks == 0:
        raise ValueError(
            f"The text has {len(stream)} tokens, fewer than one block of {length}. Use more text or a smaller "
            "block length."
        )
    return torch.tensor(stream[: n_blocks * length]).view(n_blocks, length)
