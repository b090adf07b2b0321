"""llama.cpp (xllamacpp's wheel): an exported adapter beside a small Llama; probabilities and greedy tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xllamacpp
from torch import Tensor

from benchmarks.clients.arms import Arm, move
from benchmarks.clients.figures import Figure, difference, expect, others
from benchmarks.versions.environment import ROOT
from qpa_hf.export import export

sys.path.append(str(ROOT / "tests" / "export"))
from tiny_gguf import VOCABULARY, base_file, tiny_base  # noqa: E402

PROMPT = [5, 9, 17, 33, 8, 21]
N_NEW = 12
HALF = 1e-2  # log probabilities; llama.cpp multiplies in half precision in places


def there(base: Path, adapter: Path | None) -> tuple[Tensor, list[int]]:
    """Return llama.cpp's log probabilities of the next token, and its greedy tokens."""
    params = xllamacpp.CommonParams()
    params.model.path = str(base)
    params.n_ctx, params.n_gpu_layers, params.warmup, params.n_parallel = 64, 0, False, 1
    params.cpuparams.n_threads = 1
    params.verbosity = 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    asked = {"prompt": PROMPT, "n_predict": N_NEW, "logprobs": VOCABULARY, "temperature": 0, "ignore_eos": True}
    steps = xllamacpp.Server(params).handle_completions(asked)["choices"][0]["logprobs"]["content"]
    first = sorted((token["id"], token["logprob"]) for token in steps[0]["top_logprobs"])
    return torch.tensor([value for _, value in first]), [step["id"] for step in steps]


@torch.no_grad()
def ours(model: Any) -> tuple[Tensor, list[int]]:
    """Return the same of a model in memory; llama.cpp never gives the end of the text here."""
    ids, first = list(PROMPT), torch.empty(0)
    for i in range(N_NEW):
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        if not i:
            first = logits.log_softmax(-1)
        ids.append(int(logits.index_fill(0, torch.tensor([1]), -torch.inf).argmax()))
    return first, ids[len(PROMPT) :]


def exported(arm: Arm, folder: Path) -> list[Figure]:
    """Export an adapter as GGUF, and compare."""
    base = tiny_base("llama", folder / "base")
    file = base_file("llama", base, folder / "base.gguf")
    ids = torch.tensor([PROMPT, PROMPT[::-1]])
    model = arm.adapted(base, [{"input_ids": ids, "labels": ids}], task_type="CAUSAL_LM").eval()
    with model.disable_adapter():
        before, _ = ours(model)
    move(model)
    adapter = export(arm.save_plain(model, folder / "plain"), folder / "a.gguf", "gguf", base=folder / "base")
    expected, tokens = ours(model)
    expect(bool((expected - before).abs().max() > 0.1), "the adapter changes nothing")
    found, found_tokens = there(file, adapter)
    return [difference("log probabilities", found, expected, HALF), others("greedy tokens", found_tokens, tokens)]


CASES: dict[str, Callable[..., list[Figure]]] = {"qpa export --to gguf, beside a Llama": exported}
