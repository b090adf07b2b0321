"""Classifiers of embeddings by quantum circuits: `QuantumHead` for torch, `QuantumHeadClassifier` for scikit-learn.

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
