"""mlx-lm: an exported adapter, read by `load_adapters` into a small Llama; probabilities and greedy tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import torch
from mlx_lm.models import llama
from mlx_lm.tuner.utils import load_adapters

from benchmarks.clients import tiny
from benchmarks.clients.arms import Arm
from benchmarks.clients.figures import Figure, difference, others
from benchmarks.clients.tried.transformers import moved
from qpa_hf.export import export


def there(model: Any, ids: list[int]) -> torch.Tensor:
    """Return mlx-lm's logits of the next token."""
    return torch.from_numpy(np.array(model(mx.array([ids]))))[0, -1]


def exported(arm: Arm, folder: Path) -> list[Figure]:
    """Export an adapter for mlx-lm, and compare."""
    base = tiny.save_base(folder / "base")
    model = moved(arm, base)
    export(arm.save_plain(model, folder / "plain"), folder / "mlx", "mlx")
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    other = llama.Model(llama.ModelArgs.from_dict(settings))
    weights = {name: mx.array(value.numpy()) for name, value in tiny.language_model(base).state_dict().items()}
    other.load_weights(list(other.sanitize(weights).items()))
    other = load_adapters(other, str(folder / "mlx"))
    other.eval()
    ids = tiny.prompt()[0].tolist()
    figures = [difference("logits", there(other, ids), tiny.logits(model)[0, -1], 1e-3)]
    tokens: list[int] = []
    for _ in range(tiny.N_NEW):
        logits = there(other, ids + tokens)
        tokens.append(int(logits.index_fill(0, torch.tensor([1]), -torch.inf).argmax()))
    return [*figures, others("greedy tokens", tokens, tiny.greedy(model))]


CASES: dict[str, Callable[..., list[Figure]]] = {"qpa export --to mlx, load_adapters": exported}
