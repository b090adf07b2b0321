"""`QuantumHeadClassifier`: a quantum head with scikit-learn's interface, which SetFit takes as `model_head`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qpa_hf.heads.fitting import fit_head
from qpa_hf.heads.head import QuantumHead
from qpa_hf.heads.settings import HeadSettings
from qpa_hf.whole_number import whole_number

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "`QuantumHeadClassifier` needs scikit-learn. Install it with `pip install 'qpa-hf[heads]'`, or use "
        "`QuantumHead`."
    ) from error


class QuantumHeadClassifier(ClassifierMixin, BaseEstimator):
    """A quantum head that is fitted to embeddings and labels; see `QuantumHead`.

    Args:
        n_qubits: see `HeadSettings` for this and all up to `train_circuit`.
        n_encoders: see there.
        n_layers: see there.
        n_main_layers: see there.
        n_reuploads: see there.
        connectivity: see there.
        fusion: see there.
        n_latent: see there.
        constant: see there.
        shots: see there.
        noise: see there.
        n_trajectories: see there.
        train_circuit: see there.
        n_epochs: passes over the rows.
        learning_rate: Adam's first one; it falls to zero.
        batch_size: rows at a time.
        device: where torch computes.
        random_state: of the first angles, the order of the rows, shots and errors.

    Attributes:
        head_: the fitted `QuantumHead`.
        classes_: the labels, in the order of the columns of `predict_proba`.
        n_features_in_: length of the embeddings.

    Example:
        >>> X, y = np.eye(4), ["good", "bad", "good", "bad"]
        >>> QuantumHeadClassifier(n_qubits=2, n_epochs=60, random_state=0).fit(X, y).predict(X).tolist()
        ['good', 'bad', 'good', 'bad']
    """

    def __init__(
        self,
        n_qubits: int = HeadSettings.n_qubits,
        n_encoders: int = HeadSettings.n_encoders,
        n_layers: int = HeadSettings.n_layers,
        n_main_layers: int = HeadSettings.n_main_layers,
        n_reuploads: int = HeadSettings.n_reuploads,
        connectivity: int = HeadSettings.connectivity,
        fusion: str = HeadSettings.fusion,
        n_latent: int | None = HeadSettings.n_latent,
        constant: float = HeadSettings.constant,
        shots: int | str | None = HeadSettings.shots,
        noise: str | None = HeadSettings.noise,
        n_trajectories: int = HeadSettings.n_trajectories,
        train_circuit: bool = HeadSettings.train_circuit,
        n_epochs: int = 20,
        learning_rate: float = 0.03,
        batch_size: int = 128,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.n_qubits = n_qubits
        self.n_encoders = n_encoders
        self.n_layers = n_layers
        self.n_main_layers = n_main_layers
        self.n_reuploads = n_reuploads
        self.connectivity = connectivity
        self.fusion = fusion
        self.n_latent = n_latent
        self.constant = constant
        self.shots = shots
        self.noise = noise
        self.n_trajectories = n_trajectories
        self.train_circuit = train_circuit
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> QuantumHeadClassifier:
        """Train a new head.

        Args:
            X: embeddings, shape (n_rows, n_features).
            y: labels of any kind, shape (n_rows,).

        Raises:
            ValueError: for embeddings or labels that cannot be used, or settings that are not allowed.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        n_epochs, batch_size = (whole_number(name, getattr(self, name)) for name in ("n_epochs", "batch_size"))
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"All labels are of one class, {self.classes_[0]}. Pass rows of at least two classes.")
        seed = int(check_random_state(self.random_state).randint(2**31))
        settings = {name: getattr(self, name) for name in SETTINGS}
        self.head_ = QuantumHead(X.shape[1], len(self.classes_), **settings, seed=seed).to(self.device)
        rows, targets = self._tensor(X), self._tensor(labels)
        fit_head(self.head_, rows, targets, n_epochs, self.learning_rate, batch_size, seed)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the classes' probabilities, shape (n_rows, n_classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        with torch.no_grad():
            return self.head_(self._tensor(X)).softmax(1).cpu().numpy()

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(np.ascontiguousarray(array), device=self.device)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable labels, shape (n_rows,)."""
        p = self.predict_proba(X)
        return self.classes_[p.argmax(1)]


# What the classifier hands on to the head as it is.
SETTINGS = tuple(QuantumHeadClassifier().get_params().keys() & HeadSettings.__dataclass_fields__.keys())
