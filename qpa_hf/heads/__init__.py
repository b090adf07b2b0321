"""Classifiers of embeddings by quantum circuits: `QuantumHead` for torch, `QuantumHeadClassifier` for scikit-learn.

A head takes the place of a transformers model's linear classifier: `model.classifier = QuantumHead(hidden_size)`.
`Trainer` then trains it; PEFT keeps it beside an adapter with `modules_to_save=["classifier"]`; alone it is saved with
`model.classifier.save_pretrained(folder)`, because `AutoModel...from_pretrained` knows linear classifiers only. SetFit
takes `SetFitModel(model_body=body, model_head=QuantumHeadClassifier())`.

Example:
    >>> import torch
    >>> from qpa_hf.heads import QuantumHead
    >>> QuantumHead(n_features=384)(torch.ones(8, 384)).shape
    torch.Size([8, 2])
"""

from typing import Any

from qpa_hf.heads.head import QuantumHead
from qpa_hf.heads.settings import HeadSettings

__all__ = ["HeadSettings", "QuantumHead", "QuantumHeadClassifier"]


def __getattr__(name: str) -> Any:
    # scikit-learn is an extra: who does not ask for the classifier does not need it.
    if name == "QuantumHeadClassifier":
        from qpa_hf.heads.classifier import QuantumHeadClassifier

        return QuantumHeadClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
