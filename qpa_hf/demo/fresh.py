"""Perplexity of a base model with a plain adapter. Run as a script, it cannot import qpa_hf: that is its point."""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn


@torch.no_grad()
def perplexity(model: nn.Module, blocks: Tensor, batch_size: int = 16) -> float:
    """Return exp of the mean cross-entropy per predicted token of `blocks`, shape (n_blocks, length)."""
    model.eval()
    total = 0.0
    for batch in blocks.split(batch_size):
        total += model(input_ids=batch, labels=batch).loss.item() * len(batch)
    return math.exp(total / len(blocks))


class _Blocked:
    """An import hook that has no qpa_hf."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "qpa_hf":
            raise ImportError("qpa_hf cannot be imported in this process")


def main(base: str, adapter: str, blocks: str) -> None:
    """Load a base model and an adapter with nothing but transformers and peft, and print the perplexity."""
    # The block is tried out before it is relied on: a process that could import qpa_hf would prove nothing.
    sys.meta_path.insert(0, _Blocked())
    try:
        import qpa_hf  # noqa: F401
    except ImportError:
        pass
    else:
        raise RuntimeError("qpa_hf was imported, so this process proves nothing.")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    print(repr(perplexity(PeftModel.from_pretrained(model, adapter), torch.load(blocks))))


if __name__ == "__main__":
    main(*sys.argv[1:])
