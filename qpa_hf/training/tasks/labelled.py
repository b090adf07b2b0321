"""What tasks with classes have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from peft import PeftConfig
from torch import nn

from qpa_hf.evaluation.classification import classification_metrics, classification_scores, classify
from qpa_hf.training.data import DataSettings, Examples
from qpa_hf.training.tasks.heads import base_labels, check_kind, config_for, empty_model, load_with_head
from qpa_hf.training.tasks.metrics import ACCURACY, F1, LOSS
from qpa_hf.training.tasks.task import Task


class LabelledTask(Task):
    """A classifier, whose head is kept beside the adapter.

    Attributes:
        auto: the class of transformers that makes the model.
    """

    auto: ClassVar[Any]
    metrics = (ACCURACY, F1, LOSS)
    criterion = LOSS
    listed = (ACCURACY, F1)
    has_head = True

    def empty(self, model: str, data: Examples) -> nn.Module:
        config = config_for(model, data.labels)
        check_kind(self.auto, config, model, self.name)
        return empty_model(self.auto, config)

    def load(self, model: str, data: Examples, config: PeftConfig | None = None) -> Any:
        base = config_for(model, data.labels)
        check_kind(self.auto, base, model, self.name)
        return load_with_head(self.auto, model, base, config)

    def labels_of(self, model: str, recorded: Sequence[str]) -> tuple[str, ...]:
        return tuple(recorded) or tuple(base_labels(model))

    def baseline(self, model: Any, name: str, data: Examples) -> tuple[str, dict[str, float]]:
        if set(base_labels(name)) == set(data.labels):
            return super().baseline(model, name, data)
        # A base model without a head for these classes has one that is drawn at random, which says nothing.
        labels = self.names_in(data.validation, data)
        commonest = max(range(len(data.labels)), key=labels.count)
        what = f"always {data.labels[commonest]}, the commonest class"
        return what, classification_scores([commonest] * len(labels), labels)

    def names_in(self, examples: Any, data: Examples) -> list[int]:
        """Return the indices of the classes of examples."""
        return [row["labels"] for row in examples]

    def evaluate(self, model: Any, examples: Any, data: Examples, progress: bool = False) -> dict[str, float]:
        return classification_metrics(*classify(model, self.rows(examples, data), self.collator(data), progress))

    def loss_of(self, metrics: Mapping[str, float]) -> float:
        return metrics["loss"]

    def describe(self, data: Examples, settings: DataSettings) -> str:
        return (
            f"Data: {len(data.train):,} {self.unit} of {len(data.labels)} classes to train on, "
            f"{len(data.validation):,} to evaluate on ({data.validation_split})"
        )
