"""A small Llama in transformers' own Trainer, and its gradients."""

import torch
from cases import LM
from models import VOCABULARY, build, inputs
from peft import get_peft_model
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

from qpa_hf import QPAConfig

TARGETS = ["q_proj", "v_proj", "down_proj"]


def loss_of(model, **kwargs):
    ids = inputs("llama")["input_ids"]
    output = model(input_ids=ids, **kwargs)
    return F.cross_entropy(output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def checkpointed(model, use_reentrant):
    """Switch activation checkpointing on."""
    model.train().enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def rows(n=48):
    ids = torch.randint(3, VOCABULARY, (3, 8), generator=torch.Generator().manual_seed(1))  # few, so easily learnt
    return [{"input_ids": ids[i % 3], "labels": ids[i % 3]} for i in range(n)]


def trainer(folder, callbacks=(), dropout=0.1, adapter=None, model=None, **kwargs):
    settings = {"r": 4, "chunk_size": 16, "n_circuits": 2, "target_modules": TARGETS, "lora_dropout": dropout}
    settings |= adapter or {}
    model = model or get_peft_model(build("llama"), QPAConfig(**settings, **LM))
    defaults = {
        "max_steps": 8,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    arguments = TrainingArguments(output_dir=str(folder), **(defaults | kwargs))
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=rows(),
        eval_dataset=rows(8),
        data_collator=default_data_collator,
        callbacks=list(callbacks),
    )


def losses(run):
    return [row["loss"] for row in run.state.log_history if "loss" in row]


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step
