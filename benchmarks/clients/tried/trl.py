"""TRL's trainers: four steps, a checkpoint after two, resumed from there, and the plain adapter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from benchmarks.clients import plain, tiny
from benchmarks.clients.arms import Arm, move
from benchmarks.clients.figures import Figure, difference, expect_moved, trained

PAIRS = [(text[:7], text[7:], text[7:][::-1]) for text in tiny.SENTENCES]
PROMPTS = [{"prompt": prompt} for prompt, _, _ in PAIRS]
CHOICES = [{"prompt": prompt, "chosen": good, "rejected": bad} for prompt, good, bad in PAIRS]
ARGUMENTS: dict[str, Any] = {
    "max_steps": 4,
    "save_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "logging_steps": 1,
    "dataloader_pin_memory": False,
}


def n_vowels(completions: list[str], **_: Any) -> list[float]:
    """Return a reward for each completion."""
    return [sum(letter in "aeiou" for letter in text) + len(set(text)) / 10 for text in completions]


def _trainer(arm: Arm, base: Path, folder: Path, kind: Any, arguments: Any, rows: Any, **more: Any) -> Any:
    is_reward = kind is RewardTrainer
    model = tiny.classifier(base) if is_reward else tiny.language_model(base)
    task: dict[str, Any] = {"task_type": "SEQ_CLS" if is_reward else "CAUSAL_LM"}
    how: dict[str, Any] = {"model": model, "peft_config": arm.config(**task)}
    if arm.has_gradient_bases:
        loss = (lambda model, batch: model(batch["input_ids"]).logits.square().mean()) if is_reward else None
        how = {"model": arm.adapted(model, tiny.batches(), loss, **task)}
    words = tiny.tokenizer()
    return kind(
        args=arguments(output_dir=str(folder), **ARGUMENTS),
        train_dataset=Dataset.from_list(rows),
        processing_class=words,
        **how,
        **more,
    )


def _run(kind: Any, arguments: Any, rows: Any, arm: Arm, folder: Path, **more: Any) -> list[Figure]:
    base = tiny.save_base(folder / "base")
    make = partial(_trainer, arm, base, kind=kind, arguments=arguments, rows=rows, **more)
    straight = make(folder / "run")
    start = trained(straight.model)
    straight.train()
    expect_moved(straight.model, start)
    resumed = make(folder / "again")
    resumed.train(resume_from_checkpoint=str(folder / "run" / "checkpoint-2"))
    figures = [difference("parameters after resuming", trained(resumed.model), trained(straight.model))]
    model = straight.accelerator.unwrap_model(straight.model)
    adapter = arm.save_plain(model, folder / "plain")
    return figures + plain.compared(model, base, adapter, n_labels=int(kind is RewardTrainer))


def _continued(arm: Arm, folder: Path) -> list[Figure]:
    """Give DPO a trained adapter: its reference is a copy, of which the first step's loss, log 2, is the proof."""
    base = tiny.save_base(folder / "base")
    model = arm.adapted(tiny.language_model(base), tiny.batches(), task_type="CAUSAL_LM")
    move(model)
    run = DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=str(folder / "run"), **ARGUMENTS),
        train_dataset=Dataset.from_list(CHOICES),
        processing_class=tiny.tokenizer(),
    )
    run.train()
    first = torch.tensor(run.state.log_history[0]["loss"])
    return [
        difference("first loss and log 2", first, torch.tensor(2.0).log(), 1e-4),
        *plain.compared(model, base, arm.save_plain(model, folder / "plain")),
    ]


GROUPS: dict[str, Any] = {"num_generations": 4, "max_completion_length": 8, "beta": 0.1}
CASES: dict[str, Callable[..., list[Figure]]] = {
    "SFTTrainer": partial(
        _run, SFTTrainer, SFTConfig, [{"prompt": prompt, "completion": good} for prompt, good, _ in PAIRS]
    ),
    "SFTTrainer, chat": partial(
        _run,
        SFTTrainer,
        partial(SFTConfig, assistant_only_loss=True, packing=True, max_length=64),
        [
            {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": good}]}
            for prompt, good, _ in PAIRS * 4
        ],
    ),
    "DPOTrainer": partial(_run, DPOTrainer, DPOConfig, CHOICES),
    "DPOTrainer, a trained adapter": _continued,
    "RewardTrainer": partial(_run, RewardTrainer, RewardConfig, CHOICES),
    "KTOTrainer": partial(
        _run,
        KTOTrainer,
        KTOConfig,
        [
            {"prompt": row["prompt"], "completion": row[key], "label": key == "chosen"}
            for row in CHOICES
            for key in ("chosen", "rejected")
        ],
    ),
    "GRPOTrainer": partial(_run, GRPOTrainer, partial(GRPOConfig, **GROUPS), PROMPTS, reward_funcs=n_vowels),
    "RLOOTrainer": partial(_run, RLOOTrainer, partial(RLOOConfig, **GROUPS), PROMPTS, reward_funcs=n_vowels),
}
