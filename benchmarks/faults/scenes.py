"""The commands that are interrupted, what there was before, and what has to be there in the end."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, default_data_collator

from benchmarks.faults.children import Act, run
from benchmarks.faults.service import NAME, connected, paid
from qpa_hf import QPAConfig, initialize_basis, materialize
from qpa_hf.demo.arms import BASE
from qpa_hf.demo.data import distinct_topics
from qpa_hf.measurement.device import sample
from qpa_hf.trainer_callbacks import MaterializeCallback
from qpa_hf.training.run import last_checkpoint, train_or_resume
from qpa_hf_cli import main

WEIGHTS = "adapter_model.safetensors"
COMPARED = {"comparison.json", "best_adapter.json"}  # beside weights, cached bases and the runs of a comparison
OLDER = 7  # seed of what was there before
N_JOBS, SHOTS = 4, 20
LORA: dict[str, Any] = {"target_modules": ["c_attn"], "fan_in_fan_out": True, "r": 2, "task_type": "CAUSAL_LM"}
GRADIENT = {"basis": "gradient", "chunk_size": 4}


@dataclass(frozen=True)
class Scene:
    """A command that may be interrupted.

    Args:
        name: of the command.
        act: runs it in a folder; the same again after an interruption.
        prepare: lays out what there is before.
        is_kept: whether nothing that was there before is lost, at any time.
        count: what must happen once: paid jobs by tag, commits.
    """

    name: str
    act: Act
    prepare: Act = lambda folder: None
    is_kept: Callable[[Path], bool] = lambda folder: True
    count: Callable[[Path], Any] = lambda folder: None

    def outcome(self, folder: Path) -> dict[str, Any]:
        """Return what has to be the same after an interruption as without one: names of files, bits of results."""
        files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
        digests = {name: digest(path) for name, path in files.items() if _is_result(path)}
        return {"files": sorted(files), "digests": digests, "count": self.count(folder)}


def _is_result(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.name in COMPARED or path.parent.name == "runs"


def digest(path: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def book(folder: Path, n_topics: int = 3) -> Path:
    """Return a text file of about a thousand tokens for each topic, beside the folder that a command runs in."""
    path = folder.with_name(f"book{n_topics}.txt")
    if not path.is_file():
        path.write_text("\n\n".join(topics[name][:4000] for name in distinct_topics()[:n_topics]), encoding="utf-8")
    return path


def qpa(*arguments: object) -> None:
    """Run the command line in this process, which ends with it."""
    sys.argv = ["qpa", *map(str, arguments)]
    main()


def options(text: Path, *settings: str) -> list[object]:
    """Return the options of a run of a few steps on a text."""
    tiny = ["adapter.target_modules=[c_attn]", "adapter.fan_in_fan_out=true", "adapter.r=2", "data.block_length=32"]
    tiny += ["training.learning_rate=1e-3", "training.per_device_train_batch_size=2", "training.disable_tqdm=true"]
    tiny += ["training.max_steps=4", "training.save_steps=1", "training.eval_steps=2"]
    words = [word for setting in (*tiny, *settings) for word in ("--set", setting)]
    return ["--model", BASE, "--train", text, *words]


def adapted(seed: int = 0, **settings: Any) -> PeftModel:
    """Return the demo's base model with a small adapter that has been moved away from its start."""
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(base, QPAConfig(**(LORA | settings)))
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return model


def batches(n: int = 16) -> list[dict[str, torch.Tensor]]:
    """Return examples of random tokens."""
    ids = torch.randint(3, 200, (n, 32), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": row} for row in ids]


def _train(folder: Path, *settings: str, fresh: bool = False) -> None:
    with _first_step_marked(folder.with_name(f"{folder.name}.stepped")):
        qpa("train", "--output", folder / "run", *options(book(folder), *settings), *(["--fresh"] if fresh else []))


@contextmanager
def _first_step_marked(marker: Path) -> Iterator[None]:
    """Keep that a step was taken, from which on an earlier run may go."""
    step = Trainer.training_step

    def marked(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        loss = step(self, *args, **kwargs)
        marker.touch()
        return loss

    Trainer.training_step = marked  # type: ignore[method-assign]  # the process ends with the command
    yield


def _earlier_run(folder: Path) -> None:
    """Write a folder that looks like a finished run with other settings."""
    ended = run(lambda folder: _train(folder, "training.seed=7"), folder)
    if ended.code:
        raise RuntimeError(f"The earlier run could not be made: {ended.last_line}.")
    folder.with_name(f"{folder.name}.stepped").unlink()
    shutil.copy2(folder / "run" / "adapter" / WEIGHTS, folder.with_name(f"{folder.name}.before"))


def _is_run_kept(folder: Path) -> bool:
    if folder.with_name(f"{folder.name}.stepped").exists():
        return True
    before = digest(folder.with_name(f"{folder.name}.before"))
    return before in map(digest, folder.rglob(WEIGHTS))


def _compare(folder: Path) -> None:
    arms = ["--arm", "LoRA r=1", "--arm", "QPA", "--rate", "1e-2"]
    settings = options(book(folder), "training.max_steps=2", "training.save_steps=500")
    qpa("compare", "--output", folder / "run", *arms, *settings)


def find_bases(folder: Path, **loading: Any) -> None:
    """Find gradient bases, or read them, and keep what the adapter has in the end."""
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(base, QPAConfig(**LORA, **GRADIENT))
    loader = DataLoader(batches(), 2, collate_fn=default_data_collator, **loading)  # type: ignore[arg-type]
    initialize_basis(model, loader, cache=folder / "bases.safetensors", progress=False)
    model.save_pretrained(str(folder / "native"))


def _callback(folder: Path) -> None:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), QPAConfig(**LORA))
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=2,
        save_steps=1,
        eval_steps=1,
        eval_strategy="steps",
        metric_for_best_model="loss",
        load_best_model_at_end=True,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=0,
    )
    data = batches()
    trainer = Trainer(model, arguments, default_data_collator, data, data[:4], callbacks=[MaterializeCallback()])  # type: ignore[arg-type]
    train_or_resume(trainer, checkpoint := last_checkpoint(folder))
    if checkpoint and checkpoint.endswith("-4"):  # nothing was trained, so callbacks have not been told
        trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)


def _are_plain_whole(folder: Path) -> bool:
    return all(_loads(path) for path in folder.glob("checkpoint-*/plain/adapter"))


def _loads(adapter: Path) -> bool:
    try:
        return bool(load_file(adapter / WEIGHTS)) and bool(
            json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        )
    except Exception:  # whatever is wrong with it
        return False


def older_adapter(folder: Path) -> None:
    """Write an adapter that a later one will replace, and a file of the user's beside it."""
    materialize(adapted(OLDER), folder / "adapter")
    (folder / "adapter" / "notes.txt").write_text("mine", encoding="utf-8")
    shutil.copy2(folder / "adapter" / WEIGHTS, folder.with_name(f"{folder.name}.before"))


def write_adapter(folder: Path) -> None:
    """Write a newer adapter."""
    materialize(adapted(), folder / "adapter")


def _is_adapter_kept(folder: Path) -> bool:
    """Whether the folder has all of the old adapter or all of a new one, and the user's file."""
    return _loads(folder / "adapter") and (folder / "adapter" / "notes.txt").is_file()


def measure(folder: Path) -> None:
    """Measure a few circuits on the stand-in of a device, a job each, and keep the counts."""
    angles = torch.linspace(0, 3, 2 * 2 * 3).view(2, 2, 3)
    with connected(folder.with_name("service")):
        counts = [sample(angles, "ry_cnot", SHOTS, NAME, folder / "jobs", seed=seed) for seed in range(N_JOBS)]
    save_file({str(seed): found for seed, found in enumerate(counts)}, folder / "counts.safetensors")


def _paid(folder: Path) -> list[str]:
    return sorted(tag for tag, *_ in paid(folder.with_name("service")))


SCENES = {
    scene.name: scene
    for scene in (
        Scene("qpa train", _train),
        Scene("qpa train, gradient bases", lambda folder: _train(folder, "adapter.basis=gradient")),
        Scene("qpa train --fresh", lambda folder: _train(folder, fresh=True), _earlier_run, _is_run_kept),
        Scene("qpa compare", _compare),
        Scene("initialize_basis(cache=...)", find_bases),
        Scene("MaterializeCallback", _callback, is_kept=_are_plain_whole),
        Scene("materialize", write_adapter, older_adapter, _is_adapter_kept),
        Scene("device ledger", measure, count=_paid),
    )
}
