"""Texts as blocks of tokens."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from qpa_hf.whole_number import whole_number


def read_texts(names: Iterable[str | Path], option: str) -> list[str]:
    """Return the contents of text files.

    Args:
        names: of the files.
        option: what names them, for messages.

    Raises:
        FileNotFoundError: if one is missing.
        ValueError: if one is not text in UTF-8.
    """
    texts = []
    for path in map(Path, names):
        if not path.is_file():
            raise FileNotFoundError(f"There is no text file {path}. Check {option}.")
        try:
            texts.append(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not text in UTF-8 ({error}). Convert it, or check {option}.") from error
    return texts


def text_blocks(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], length: int) -> Tensor:
    """Return the texts' tokens end to end, one mark of a beginning before each, cut into blocks without padding.

    Args:
        tokenizer: turns texts into tokens.
        texts: documents; empty ones are left out.
        length: tokens per block.

    Returns:
        Token ids, shape (n_blocks, length); the rest that fills no block is dropped.

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
