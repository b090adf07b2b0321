"""The base model of a run: its tokenizer, and whether the text fits it."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from qpa_hf.checkpoint import check_folder
from qpa_hf.messages import first_sentence


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the base model's tokenizer.

    Raises:
        FileNotFoundError: if `name` is a path that leads to no directory.
        ValueError: if it leads to no tokenizer.
    """
    check_folder(name, "base model")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No tokenizer can be loaded from {name} ({first_sentence(error)}). Name a directory or Hub id that holds "
            "a model and its tokenizer."
        ) from error


def check_fit(base: Any, model: str, last_token: int, length: int, option: str) -> None:
    """Raise ValueError if rows of tokens are none that a base model can read.

    Args:
        base: the base model.
        model: the name of the base model, for messages.
        last_token: the largest token id.
        length: the number of tokens of the longest row.
        option: the setting of the length, for messages.
    """
    # Both would fail inside the model, where torch speaks of an index out of range, or of an assertion on a device.
    if last_token >= len(base.get_input_embeddings().weight):
        raise ValueError(f"The tokenizer of {model} has more tokens than the model. Name a model with its own.")
    longest = getattr(base.config, "max_position_embeddings", None)
    if longest is not None and length > longest:
        raise ValueError(
            f"`{option}`={length} is more than the {longest} positions of {model}. Set it to {longest} or less."
        )
