"""One of two processes that train under DeepSpeed, started by torchrun: four steps, or some of them.

DeepSpeed's communication must be there before the model is loaded: with ZeRO-3, `zero.Init` counts one process
otherwise, and stops at the batch size. `TrainingArguments` must be there, too, for it is what turns ZeRO-3 on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
from peft import PeftModel
from torch import Tensor
from transformers import Trainer, default_data_collator

from benchmarks.clients import tiny
from benchmarks.clients.arms import ARMS
from benchmarks.clients.tried.transformers import arguments, rows


def settings(stage: int) -> dict[str, Any]:
    """Return DeepSpeed's configuration; ZeRO-3 keeps no parameter whole, however small."""
    shards = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
    # From Trainer's arguments; without "gradient_clipping" among them DeepSpeed clips at 1, whatever these say.
    taken = ("train_micro_batch_size_per_gpu", "train_batch_size", "gradient_accumulation_steps", "gradient_clipping")
    return {
        "zero_optimization": shards,
        "zero_allow_untested_optimizer": True,
        **dict.fromkeys(taken, "auto"),
    }


def whole(model: Any) -> dict[str, Tensor]:
    """Return copies of all that is trained, gathered from the processes."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with deepspeed.zero.GatheredParameters(list(named.values())):
        return {name: p.detach().clone() for name, p in named.items()}


def main(asked: str) -> None:
    """Train as a JSON text says, and save the parameters."""
    stage, arm_name, base, native, output, target, resume, more = json.loads(asked)
    deepspeed.init_distributed(dist_backend="gloo")
    asks = {"per_device_train_batch_size": 2, "deepspeed": settings(stage), **more}
    args = arguments(Path(output), **asks)
    arm = next(arm for arm in ARMS if arm.name == arm_name)
    model = tiny.language_model(Path(base))
    if native is None:
        model = arm.adapted(model, task_type="CAUSAL_LM")
    else:
        model = PeftModel.from_pretrained(model, native, is_trainable=True)
    trainer = Trainer(model=model, args=args, train_dataset=rows(), data_collator=default_data_collator)
    trainer.train(resume_from_checkpoint=resume)
    found = whole(trainer.model)
    if torch.distributed.get_rank() == 0:
        torch.save({"parameters": found, "n_processes": torch.distributed.get_world_size()}, target)
    torch.distributed.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
