"""The demo's adapters, each trained by the real Trainer on the same data in the same order."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from qpa_hf import QPAConfig, initialize_basis, materialize
from qpa_hf.accelerators import check_kernels
from qpa_hf.checkpoint import write_text
from qpa_hf.demo.fresh import perplexity
from qpa_hf.schema import check_kinds, naming, read_object
from qpa_hf.trainer_callbacks import GradientBasisCallback
from qpa_hf.training.progress import QuietProgress
from qpa_hf.training.resuming import last_checkpoint, train_or_resume

BASE = Path(__file__).parent / "base"
SEED = 0
LORA: dict[str, Any] = {
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["c_attn", "c_proj", "c_fc"],
    "fan_in_fan_out": True,
    "task_type": "CAUSAL_LM",
}
# Layers on gradient bases are scaled by 1, whatever the rank is; a core has r * r values.
GRADIENT: dict[str, Any] = {"basis": "gradient", "r": 32, "lora_alpha": None}
N_EXAMPLES = 256  # blocks of text from which bases are found; as many as are trained on, where these are fewer
BATCH_SIZE = 8


@dataclass(frozen=True)
class Arm:
    """One adapter of the comparison.

    Args:
        name: the arm's name in the table.
        learning_rate: the learning rate of AdamW at the start of a linear schedule.
        settings: the fields of QPAConfig that differ from LoRA's; None for plain LoRA.
    """

    name: str
    learning_rate: float
    settings: dict[str, Any] | None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the adapter's configuration."""
        return LORA if self.settings is None else LORA | GRADIENT | self.settings

    def model(self) -> PeftModel:
        """Return the base model with this adapter, untrained."""
        set_seed(SEED)
        base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
        config = LoraConfig(**LORA) if self.settings is None else QPAConfig(**self.fields)
        return get_peft_model(base, config)


# LoRA's rate is its best in learning_rates.json, which rates.py makes; QPA's is the best of r = 32 in recorded runs on
# WikiText-2, and its controls share it. They have nearly the same size: what stands in the circuits' place, and cores
# that are trained directly.
ARMS = (
    Arm("LoRA", 1e-2, None),
    Arm("QPA", 1e-2, {}),
    Arm("random", 1e-2, {"source": "random"}),
    Arm("free", 1e-2, {"source": "free"}),
    Arm("direct", 1e-2, {"source": "direct", "r": 15}),
)


@dataclass
class Record:
    """What one arm's run recorded."""

    name: str
    learning_rate: float
    n_trainable: int
    perplexity_before: float
    perplexity_after: float
    native_bytes: int
    materialized_bytes: int
    losses: list[tuple[int, float]]
    fingerprint: str


def fingerprint(arm: Arm, steps: int, train: Tensor) -> str:
    """Return a name shared by exactly the runs that would give the same result."""
    text = hashlib.sha256(train.numpy().tobytes()).hexdigest()
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "qpa-hf")}
    # Everything that decides a result, and the versions of what computes it: a record of another library's run is not
    # this run's.
    identity = [
        asdict(arm),
        arm.fields,
        N_EXAMPLES if arm.settings is not None else 0,
        SEED,
        steps,
        text,
        versions,
        (BASE / "pretraining.json").read_text(encoding="utf-8"),
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _recorded(path: Path) -> Record:
    """Return the record of a finished run.

    Raises:
        ValueError: if it is damaged.
    """
    values = read_object(path)
    with naming(path):
        check_kinds(values, Record)
        return Record(**values)


def run(arm: Arm, folder: Path, train: Tensor, held_out: Tensor, steps: int) -> Record:
    """Train one arm, or take up its interrupted run, or return the record of a finished one."""
    mark = fingerprint(arm, steps, train)
    finished = folder / "record.json"
    if finished.is_file():
        record = _recorded(finished)
        if record.fingerprint == mark:
            print(f"{arm.name}: already trained, taken from {folder}")
            return record
    model = arm.model()
    with model.disable_adapter():  # which does nothing yet, and may have no bases
        before = perplexity(model, held_out)
    checkpoints = folder / f"run-{mark}"
    trainer = trainer_for(arm, model, checkpoints, train, steps)
    train_or_resume(trainer, last_checkpoint(checkpoints))
    after = perplexity(model, held_out)
    native = folder / "native"
    plain = folder / "adapter"
    model.save_pretrained(str(native))
    if arm.settings is not None:
        materialize(model, plain)
    losses = [(int(row["step"]), row["loss"]) for row in trainer.state.log_history if "loss" in row]
    size = _weights_bytes(native)
    record = Record(
        name=arm.name,
        learning_rate=arm.learning_rate,
        n_trainable=model.get_nb_trainable_parameters()[0],
        perplexity_before=before,
        perplexity_after=after,
        native_bytes=size,
        materialized_bytes=size if arm.settings is None else _weights_bytes(plain),
        losses=losses,
        fingerprint=mark,
    )
    write_text(finished, json.dumps(asdict(record)))
    return record


def _weights_bytes(folder: Path) -> int:
    return (folder / "adapter_model.safetensors").stat().st_size


def trainer_for(arm: Arm, model: PeftModel, folder: Path, train: Tensor, steps: int) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=arm.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(10, steps // 4),
        seed=SEED,
        logging_steps=max(1, steps // 40),
        save_steps=max(1, steps // 4),
        save_total_limit=1,
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )
    check_kernels(arguments.device)
    rows = [{"input_ids": block, "labels": block} for block in train]
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=default_data_collator)
    trainer.remove_callback(ProgressCallback)
    if arm.settings is not None:
        trainer.add_callback(GradientBasisCallback(trainer, min(N_EXAMPLES, BATCH_SIZE * steps)))
    trainer.add_callback(QuietProgress)
    return trainer


def step_time_ratios(train: Tensor, rounds: int) -> dict[str, float]:
    """Return each arm's median time of a training step over LoRA's, the arms taking turns in one process."""
    batch = train[:BATCH_SIZE]
    models = {arm.name: arm.model() for arm in ARMS}
    for arm in ARMS:
        if arm.settings is not None:  # any bases take the same time
            initialize_basis(models[arm.name], [{"input_ids": batch, "labels": batch}], progress=False)
    optimizers = {
        name: torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        for name, model in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    # The arms take turns, so that a machine that slows down slows all of them; the first two rounds warm up, and do
    # not count.
    for _ in range(rounds + 2):
        for name, model in models.items():
            start = time.perf_counter()
            model(input_ids=batch, labels=batch).loss.backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds[2:]) for name, seconds in times.items()}
    return {name: median / medians[ARMS[0].name] for name, median in medians.items()}
