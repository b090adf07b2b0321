"""How good a classifier is: accuracy, F1 and cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from qpa_hf.evaluation.perplexity import BATCH_SIZE
from qpa_hf.models import evaluating

METRIC_PATH = str(Path(__file__).with_name("metric") / "qpa_classification.py")  # for `evaluate.load`, without a Hub


@torch.no_grad()
def classify(
    model: Any, rows: Any, collator: Callable[[list[Any]], dict[str, Any]], progress: bool = False
) -> tuple[Tensor, Tensor]:
    """Return a classifier's logits, shape (n_rows, n_classes), and the labels, shape (n_rows,).

    Args:
        model: the classifier.
        rows: its examples, with `labels`.
        collator: what makes a batch of them.
        progress: whether to show a progress bar.
    """
    device = next(model.parameters()).device
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    batches: Any = DataLoader(rows, BATCH_SIZE, collate_fn=collator)
    with evaluating(model):
        for batch in track(batches, "evaluating", console=Console(stderr=True), transient=True, disable=not progress):
            inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
            logits.append(model(**inputs).logits.float().cpu())
            labels.append(batch["labels"])
    return torch.cat(logits), torch.cat(labels)


def classification_scores(predictions: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """Return the share of right predictions, and the mean of the classes' F1 (macro F1).

    Args:
        predictions: the predicted class of each row.
        labels: the true ones.

    Example:
        >>> classification_scores([0, 1, 1, 1], [0, 0, 1, 1])["accuracy"]
        0.75
    """
    from sklearn.metrics import accuracy_score, f1_score

    accuracy = accuracy_score(labels, predictions)
    return {"accuracy": float(accuracy), "f1": float(f1_score(labels, predictions, average="macro", zero_division=0))}


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy, macro F1 and the mean cross-entropy in nats.

    Args:
        logits: shape (n_rows, n_classes).
        labels: the true classes, shape (n_rows,).
    """
    scores = classification_scores(logits.argmax(1).tolist(), labels.tolist())
    return scores | {"loss": F.cross_entropy(logits.double(), labels).item()}
