"""Perplexity as everyone defines it, and as the authors' code computes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from qpa_hf.messages import whole_number
from qpa_hf.models import evaluating
from qpa_hf.terminal import bar_options

METRIC_PATH = str(Path(__file__).with_name("metric") / "qpa_perplexity.py")  # for `evaluate.load`, which needs no Hub
BATCH_SIZE = 8


@torch.no_grad()
def _cross_entropy(
    model: nn.Module, ids: Tensor, labels: Tensor, mask: Tensor, batch_size: int, progress: bool
) -> float:
    """Return the mean cross-entropy in nats over the labels that are not -100; ids, labels, mask: (n_rows, length)."""
    device = next(model.parameters()).device
    batch_size = whole_number("batch_size", batch_size)
    # Sums are divided once, at the end: a mean of the batches' means would weigh a short last batch, or one with many
    # masked tokens, like a full one.
    total = 0.0
    n_predicted = 0
    starts = range(0, len(ids), batch_size)
    with evaluating(model):
        for start in track(starts, "evaluating", disable=not progress, **bar_options()):
            rows = slice(start, start + batch_size)
            logits = model(input_ids=ids[rows].to(device), attention_mask=mask[rows].to(device)).logits[:, :-1]
            targets = labels[rows, 1:].to(device)
            total += F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum").item()
            n_predicted += int((targets != -100).sum())
    return total / n_predicted


def _exp(loss: float) -> float:
    """Return e to the loss; a model that has diverged has a perplexity beyond the largest float."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def perplexity(model: nn.Module, blocks: Tensor, batch_size: int = BATCH_SIZE, progress: bool = False) -> float:
    """Return the standard perplexity: exp of the mean cross-entropy per predicted token.

    Args:
        model: the causal language model.
        blocks: the token ids, shape (n_blocks, length), without padding; the first token of a block is not predicted.
        batch_size: the number of blocks that are evaluated at a time.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if there is no block with at least two tokens, or `batch_size` is less than 1.
    """
    if blocks.dim() != 2 or not len(blocks) or blocks.shape[1] < 2:
        raise ValueError(
            f"`blocks` must have shape (n_blocks, length) with at least 1 block of 2 tokens, got "
            f"{tuple(blocks.shape)}. Use a longer text or a shorter block length."
        )
    return _exp(_cross_entropy(model, blocks, blocks, torch.ones_like(blocks), batch_size, progress))


def labelled_perplexity(
    model: nn.Module,
    ids: Tensor,
    labels: Tensor,
    mask: Tensor,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> float:
    """Return exp of the mean cross-entropy per token that has a label, such as those of a chat's answers.

    Args:
        model: the causal language model.
        ids: the token ids, padded on the right, shape (n_rows, length).
        labels: the same where a token counts, else -100.
        mask: 1 for tokens, 0 for padding.
        batch_size: the number of rows that are evaluated at a time.
        progress: whether to show a progress bar.
    """
    return _exp(_cross_entropy(model, ids, labels, mask, batch_size, progress))


def padded_perplexity(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    length: int = 128,
    batch_size: int = BATCH_SIZE,
    progress: bool = False,
) -> float:
    """Return the paper's perplexity, which counts padding: comparable with its tables and with nothing else.

    Each text is one sequence, cut or padded to a fixed length with the tokenizer's padding token, with the end-of-text
    token where it has none (GPT-2), and the padding tokens are predicted like all others. Most of them are easy, so
    values near 1.6 are no sign of a good model.

    Source: the authors' published code; the paper (https://huggingface.co/papers/2410.09846) does not mention it.

    Args:
        model: the causal language model.
        tokenizer: the tokenizer of the model.
        texts: the sequences, empty ones included.
        length: the number of tokens of each sequence.
        batch_size: the number of sequences that are evaluated at a time.
        progress: whether to show a progress bar.

    Raises:
        ValueError: if there is no text, `length` is less than 2, `batch_size` less than 1, or the model does not know
            a token.
    """
    length = whole_number("length", length, least=2)
    if not texts:
        raise ValueError("There is no text. Pass at least one.")
    # Labels are the padded tokens themselves, without the mask: predicting padding is what this protocol counts.
    rows = [ids[:length] for ids in tokenizer(list(texts), verbose=False)["input_ids"]]
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = torch.tensor([row + [padding] * (length - len(row)) for row in rows])
    n_known = len(model.get_input_embeddings().weight)
    if ids.max() >= n_known:
        raise ValueError(
            f"The padded text has token {ids.max()}, but the model's last one is {n_known - 1}. Set the tokenizer's "
            "`pad_token` to one that the model knows, such as its `eos_token`."
        )
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    mask[:, 0] = 1  # an empty text: attention needs something to look at
    return _exp(_cross_entropy(model, ids, ids, mask, batch_size, progress))
