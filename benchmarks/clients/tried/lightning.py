"""Lightning: a module around an adapted model is trained, kept in checkpoints, resumed, and used plain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from benchmarks.clients import plain, tiny
from benchmarks.clients.arms import Arm
from benchmarks.clients.figures import Figure, difference, expect_moved, trained
from benchmarks.clients.tried.transformers import rows


class Module(lightning.LightningModule):
    """A language model with an adapter."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: dict[str, torch.Tensor], _: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return self.model(**batch).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW over what is trained."""
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def fitted(arm: Arm, base: Path, folder: Path, resume: Path | None = None) -> Module:
    """Train four steps in all, with a checkpoint after two."""
    module = Module(arm.adapted(tiny.language_model(base), tiny.batches(), task_type="CAUSAL_LM"))
    start = trained(module)
    kept = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_steps=4, callbacks=[kept], **quiet)
    trainer.fit(module, DataLoader(rows(), batch_size=4), ckpt_path=resume and str(resume))
    expect_moved(module, start)
    return module


def trains(arm: Arm, folder: Path) -> list[Figure]:
    """Train, resume, and compare the plain adapter."""
    base = tiny.save_base(folder / "base")
    straight = fitted(arm, base, folder / "run")
    resumed = fitted(arm, base, folder / "again", folder / "run" / "step=2.ckpt")
    figures = [difference("parameters after resuming", trained(resumed), trained(straight))]
    return figures + plain.compared(straight.model, base, arm.save_plain(straight.model, folder / "plain"))


CASES: dict[str, Callable[..., list[Figure]]] = {"train, resume, plain adapter": trains}
