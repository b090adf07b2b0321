"""vLLM on a CPU: its LoRA loader reads the portable adapter; log probabilities and greedy tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.clients import tiny
from benchmarks.clients.arms import Arm
from benchmarks.clients.figures import Figure, difference, others
from benchmarks.clients.plain import without_us
from benchmarks.clients.tried.transformers import moved

HEADS = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}  # vLLM's kernels want 32 or more each
ALONE = """
import os
os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
base, adapter, ids, n_new = asked
model = LLM(base, enable_lora=True, max_lora_rank=8, dtype="float32", max_model_len=64, enforce_eager=True,
            max_num_seqs=2, disable_log_stats=True)
greedy = SamplingParams(temperature=0, max_tokens=n_new, min_tokens=n_new, logprobs=5, ignore_eos=True)
found = model.generate({"prompt_token_ids": ids[0]}, greedy, lora_request=LoRARequest("a", 1, adapter))[0].outputs[0]
answer = {"tokens": list(found.token_ids), "first": {int(k): v.logprob for k, v in found.logprobs[0].items()}}
"""


def served(arm: Arm, folder: Path) -> list[Figure]:
    """Serve the portable adapter."""
    base = tiny.save_base(folder / "base", **HEADS)
    model = moved(arm, base)
    adapter = arm.save_plain(model, folder / "plain", portable=True)
    asked = [str(base), str(adapter), tiny.prompt().tolist(), tiny.N_NEW]
    found = without_us(ALONE, asked, folder / "answer.pt")
    expected = tiny.logits(model)[0, -1].log_softmax(-1)
    first = torch.tensor(list(found["first"].values()))
    return [
        difference("log probabilities of the likeliest", first, expected[list(found["first"])], 1e-3),
        others("greedy tokens", found["tokens"], tiny.greedy(model)),
    ]


CASES: dict[str, Callable[..., list[Figure]]] = {"the portable adapter as LoRARequest": served}
