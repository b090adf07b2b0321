"""transformers' own integration of PEFT: adapters in bare models, Auto classes, pipelines, Trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, default_data_collator, pipeline

from benchmarks.clients import plain, tiny
from benchmarks.clients.arms import Arm, move
from benchmarks.clients.figures import Figure, difference, expect_moved, others, trained


def rows() -> list[dict[str, Any]]:
    """Return the sentences as rows, all of one length."""
    found = tiny.batches(len(tiny.SENTENCES))[0]
    return [{name: values[i] for name, values in found.items()} for i in range(len(tiny.SENTENCES))]


def arguments(folder: Path, **settings: Any) -> TrainingArguments:
    """Return Trainer's settings: four steps, a checkpoint after two."""
    sizes = {"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2}
    quiet = {"report_to": "none", "disable_tqdm": True, "logging_steps": 1, "dataloader_pin_memory": False}
    return TrainingArguments(output_dir=str(folder), use_cpu=True, **{**sizes, **quiet, **settings})


def trainer(arm: Arm, base: Path, folder: Path, model: Any = None, **settings: Any) -> Trainer:
    """Return a Trainer of a language model with an adapter."""
    model = model or arm.adapted(tiny.language_model(base), tiny.batches(), task_type="CAUSAL_LM")
    return Trainer(
        model=model, args=arguments(folder, **settings), train_dataset=rows(), data_collator=default_data_collator
    )


def trains(arm: Arm, folder: Path) -> list[Figure]:
    """Train, resume from a checkpoint, and compare the plain adapter."""
    base = tiny.save_base(folder / "base")
    straight, resumed = (trainer(arm, base, folder / name) for name in ("run", "again"))
    start = trained(straight.model)
    straight.train()
    expect_moved(straight.model, start)
    resumed.train(resume_from_checkpoint=str(folder / "run" / "checkpoint-2"))
    figures = [difference("parameters after resuming", trained(resumed.model), trained(straight.model))]
    return figures + plain.compared(straight.model, base, arm.save_plain(straight.model, folder / "plain"))


def moved(arm: Arm, base: Path) -> Any:
    """Return a `PeftModel` whose adapter changes much."""
    model = arm.adapted(tiny.language_model(base), tiny.batches(), task_type="CAUSAL_LM").eval()
    move(model)
    return model


def native(arm: Arm, folder: Path) -> list[Figure]:
    """Load a saved adapter by `load_adapter`, an Auto class and `pipeline`, and put a new one in by `add_adapter`."""
    base = tiny.save_base(folder / "base")
    model = moved(arm, base)
    model.save_pretrained(folder / "native")
    expected, tokens = tiny.logits(model), tiny.greedy(model)
    bare = tiny.language_model(base)
    bare.load_adapter(str(folder / "native"))
    figures = [
        difference("load_adapter's logits", tiny.logits(bare), expected),
        others("load_adapter's greedy tokens", tiny.greedy(bare), tokens),
    ]
    auto = AutoModelForCausalLM.from_pretrained(folder / "native", dtype=torch.float32)
    figures.append(difference("AutoModelForCausalLM's logits", tiny.logits(auto), expected))
    pipe = pipeline("text-generation", model=str(folder / "native"), tokenizer=tiny.tokenizer(), device="cpu")
    asked = {"max_new_tokens": tiny.N_NEW, "min_new_tokens": tiny.N_NEW, "do_sample": False, "return_full_text": False}
    answer = pipe(tiny.PROMPT, **asked)[0]["generated_text"]
    figures.append(others("pipeline's text", [answer], [tiny.tokenizer().decode(tokens, skip_special_tokens=True)]))
    bare.delete_adapter("default")
    return [*figures, difference("logits without it", tiny.logits(bare), tiny.logits(tiny.language_model(base)))]


def bare_model(arm: Arm, folder: Path) -> list[Figure]:
    """Train an adapter that `add_adapter` put into a bare model, save it, and load it into another."""
    base = tiny.save_base(folder / "base")
    model = tiny.language_model(base)
    model.add_adapter(arm.config(task_type="CAUSAL_LM"))
    if arm.has_gradient_bases:
        from qpa_hf import initialize_basis

        initialize_basis(model, tiny.batches())
    start = trained(model)
    trainer(arm, base, folder / "run", model).train()
    expect_moved(model, start)
    model.save_pretrained(folder / "native")
    other = tiny.language_model(base)
    other.load_adapter(str(folder / "native"))
    return [difference("logits when loaded again", tiny.logits(other), tiny.logits(model))]


def merged(arm: Arm, folder: Path) -> list[Figure]:
    """Merge the adapter, save the model, and load it by transformers alone."""
    base = tiny.save_base(folder / "base")
    model = moved(arm, base)
    expected, tokens = tiny.logits(model), tiny.greedy(model)
    model.merge_and_unload().save_pretrained(folder / "merged")
    alone = tiny.language_model(folder / "merged")
    figures = [difference("logits when merged", tiny.logits(alone), expected, 1e-4)]
    return [*figures, others("greedy tokens when merged", tiny.greedy(alone), tokens)]


CASES: dict[str, Callable[..., list[Figure]]] = {
    "Trainer: train, resume, plain adapter": trains,
    "load_adapter, AutoModel, pipeline, delete_adapter": native,
    "add_adapter, Trainer, save, load": bare_model,
    "merge_and_unload": merged,
}
