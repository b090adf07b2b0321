"""Text that a language model writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, set_seed

from qpa_hf.messages import whole_number
from qpa_hf.models import evaluating

N_TOKENS = 48  # that a sample has at most


@torch.no_grad()
def generate_text(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    n_tokens: int = N_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
) -> str:
    """Return what a model writes after a prompt.

    Args:
        model: the causal language model.
        tokenizer: its tokenizer.
        prompt: the token ids to go on from.
        n_tokens: the most tokens to write; fewer where the model has no more positions.
        temperature: of the draw of each token; 0 takes the most probable one.
        seed: the seed of the draws.

    Raises:
        ValueError: if the prompt is empty, or leaves no position of the model free.
    """
    n_tokens = whole_number("n_tokens", n_tokens)
    longest = getattr(model.config, "max_position_embeddings", None)
    if not len(prompt):
        raise ValueError("The prompt is empty. Name a text to go on from.")
    if longest is not None and len(prompt) >= longest:
        raise ValueError(
            f"The prompt has {len(prompt)} tokens, and the model has {longest} positions. Shorten the prompt."
        )
    if longest is not None:
        n_tokens = min(n_tokens, longest - len(prompt))
    ids = torch.tensor([list(prompt)], device=next(model.parameters()).device)
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    how: dict[str, Any] = {"do_sample": False}
    if model.generation_config.eos_token_id is None:  # else a chat's end of an answer is among its own
        how["eos_token_id"] = tokenizer.eos_token_id
    if temperature > 0:
        how |= {"do_sample": True, "temperature": temperature, "top_k": 0}
    state = torch.random.get_rng_state()
    try:
        set_seed(seed)
        with evaluating(model):
            written = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=n_tokens,
                pad_token_id=padding,
                **how,
            )
    finally:
        torch.random.set_rng_state(state)
    return str(tokenizer.decode(written[0, len(prompt) :].tolist(), skip_special_tokens=True))


def beside_base(model: Any, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], **how: Any) -> dict[str, str]:
    """Return a prompt, and what the base model and the adapted one write after it.

    Args:
        model: the `PeftModel`.
        tokenizer: its tokenizer.
        prompt: the token ids to go on from.
        how: what else `generate_text` takes.
    """
    adapted = generate_text(model, tokenizer, prompt, **how)
    with model.disable_adapter():
        base = generate_text(model, tokenizer, prompt, **how)
    return {"prompt": str(tokenizer.decode(list(prompt), skip_special_tokens=True)), "base": base, "adapter": adapted}
