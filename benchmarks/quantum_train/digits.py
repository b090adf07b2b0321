"""Handwritten digits, 8 x 8 pixels, shipped with scikit-learn, and a CNN that tells them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quantum_train.task import Part, batches

SPLIT_SEED = 0
SIZES = {"train": 897, "development": 300, "test": 600}
GREYS = 16  # a pixel is a count from 0 to 16
N_CLASSES = 10


@lru_cache(maxsize=1)
def load() -> dict[str, tuple[Tensor, Tensor]]:
    """Return images, shape (n, 1, 8, 8), and labels, shape (n,), of each part; all classes have their share."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / GREYS, dtype=torch.float32).view(-1, 1, 8, 8)
    rest, parts = range(len(labels)), {}
    for part in ("test", "development"):
        rest, chosen = train_test_split(rest, test_size=SIZES[part], stratify=labels[rest], random_state=SPLIT_SEED)
        parts[part] = chosen
    parts["train"] = rest
    return {part: (images[rows], torch.tensor(labels[rows])) for part, rows in parts.items()}


@dataclass(frozen=True)
class Digits:
    """Ten classes; the measure is the share of test images with the right one."""

    n_steps: int = 300
    batch_size: int = 64
    width: int = 12

    name: ClassVar = "digits"
    network: ClassVar = "CNN, two convolutions and a linear layer"
    measure: ClassVar = "accuracy"
    unit: ClassVar = "%"
    is_higher_better: ClassVar = True
    n_tuning: ClassVar = 1

    def build(self, width: int) -> nn.Module:
        """Return two convolutions of `width` and twice as many channels, each pooled, and a linear layer."""
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(8 * width, N_CLASSES),
        )  # fmt: skip

    def losses(self, model: nn.Module, seed: int) -> Iterator[Tensor]:
        """Yield the cross-entropy of one batch after the other."""
        images, labels = load()["train"]
        for rows in batches(len(labels), self.batch_size, self.n_steps, seed):
            yield F.cross_entropy(model(images[rows]), labels[rows])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Part) -> dict[str, float]:
        """Return cross-entropy in nats as `loss`, and accuracy."""
        images, labels = load()[part]
        logits = model(images)
        accuracy = (logits.argmax(1) == labels).float().mean().item()
        return {"loss": F.cross_entropy(logits, labels).item(), "accuracy": accuracy}

    def references(self) -> dict[str, float]:
        """Return the accuracy of logistic regression on the pixels, which has 650 numbers."""
        from sklearn.linear_model import LogisticRegression

        parts: dict[str, Any] = {part: (x.flatten(1).numpy(), y.numpy()) for part, (x, y) in load().items()}
        fitted = LogisticRegression(max_iter=1000).fit(*parts["train"])
        return {"logistic regression (650 numbers)": float(fitted.score(*parts["test"]))}
