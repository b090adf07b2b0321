"""What an adapter answers in a process that has transformers and peft, and none of qpa_hf."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.clients import tiny
from benchmarks.clients.figures import BOUND, Figure, difference, others

ERROR = re.compile(r"[\w.]*(Error|Exception): ")
# Importing qpa_hf is an error there.
BEFORE = 'import sys; sys.modules["qpa_hf"] = None\nimport json, torch\nasked = json.loads(sys.argv[1])\n'
AFTER = "\ntorch.save(answer, sys.argv[2])\n"
LANGUAGE_MODEL = """
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
base, adapter, ids, n_new, n_labels = asked
kind = AutoModelForSequenceClassification if n_labels else AutoModelForCausalLM
model = kind.from_pretrained(base, dtype=torch.float32, **({"num_labels": n_labels} if n_labels else {}))
model = PeftModel.from_pretrained(model, adapter).eval()
ids = torch.tensor(ids)
with torch.no_grad():
    answer = {"logits": model(input_ids=ids).logits.float(), "tokens": []}
    if not n_labels:
        sizes = {"max_new_tokens": n_new, "min_new_tokens": n_new, "do_sample": False}
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **sizes)
        answer["tokens"] = found[0, ids.shape[1]:].tolist()
"""


def without_us(code: str, asked: Any, target: Path) -> Any:
    """Run code in a process without qpa_hf, and return what it calls `answer`.

    Args:
        code: Python that reads `asked`.
        asked: anything that JSON can hold.
        target: a file for the answer.

    Raises:
        RuntimeError: with its error if it fails.
    """
    command = [sys.executable, "-c", BEFORE + code + AFTER, json.dumps(asked), str(target)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=600, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it was ended"]
        errors = [line for line in lines if ERROR.match(line)]
        raise RuntimeError(f"without qpa_hf: {(errors or lines)[-1]}")
    return torch.load(target)


def compared(model: Any, base: Path, adapter: Path, n_labels: int = 0, bound: float = BOUND) -> list[Figure]:
    """Return how far a model in memory is from its plain adapter, loaded by transformers and peft alone."""
    asked = [str(base), str(adapter), tiny.prompt().tolist(), tiny.N_NEW, n_labels]
    there = without_us(LANGUAGE_MODEL, asked, adapter.with_suffix(".answer"))
    figures = [difference("plain adapter's logits", there["logits"], tiny.logits(model), bound)]
    return figures + (
        [] if n_labels else [others("plain adapter's greedy tokens", there["tokens"], tiny.greedy(model))]
    )
