"""lm-eval: its log likelihoods of choices, with the plain adapter as `peft=`, against transformers and peft."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.clients import tiny
from benchmarks.clients.arms import Arm
from benchmarks.clients.figures import Figure, difference
from benchmarks.clients.plain import without_us
from benchmarks.clients.tried.transformers import moved

# A task of one file; its samples tell the likelihood of each choice.
ALONE = """
import lm_eval
from lm_eval.api.task import ConfigurableTask
base, adapter, rows = asked
task = ConfigurableTask(config={
    "task": "endings", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": rows}}, "test_split": "test",
    "output_type": "multiple_choice", "doc_to_text": "{{start}}", "doc_to_choice": "{{ends}}", "doc_to_target": 0,
    "target_delimiter": "", "metric_list": [{"metric": "acc"}],
})
arguments = {"pretrained": base, "peft": adapter, "dtype": "float32"}
found = lm_eval.simple_evaluate(
    model="hf", model_args=arguments, tasks=[task], device="cpu", batch_size=1, log_samples=True, bootstrap_iters=0
)
samples = sorted(found["samples"]["endings"], key=lambda sample: sample["doc_id"])
answer = {"likelihoods": torch.tensor([[r[0] for r in s["filtered_resps"]] for s in samples], dtype=torch.float64),
          "accuracy": torch.tensor(found["results"]["endings"]["acc,none"])}
"""


@torch.no_grad()
def likelihood(model: Any, start: str, end: str) -> float:
    """Return the log likelihood of an ending."""
    words = tiny.tokenizer()
    context = words(start)["input_ids"]
    ids = context + words(end)["input_ids"]
    found = model.eval()(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(found[i - 1, ids[i]].item() for i in range(len(context), len(ids)))


def evaluated(arm: Arm, folder: Path) -> list[Figure]:
    """Evaluate the plain adapter on a small task of choices."""
    base = tiny.save_base(folder / "base")
    model = moved(arm, base)
    adapter = arm.save_plain(model, folder / "plain")
    rows = [{"start": text[:7], "ends": [text[7:], text[7:][::-1]]} for text in tiny.SENTENCES]
    (folder / "rows.json").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = without_us(ALONE, [str(base), str(adapter), str(folder / "rows.json")], folder / "answer.pt")
    expected = torch.tensor([[likelihood(model, row["start"], end) for end in row["ends"]] for row in rows])
    return [
        difference("log likelihoods", found["likelihoods"], expected, 1e-3),
        difference("accuracy", found["accuracy"], (expected[:, 0] > expected[:, 1]).double().mean(), 0),
    ]


CASES: dict[str, Callable[..., list[Figure]]] = {"a task of choices, peft=adapter": evaluated}
