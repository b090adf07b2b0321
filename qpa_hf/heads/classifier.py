"""`QuantumHeadClassifier`: a quantum head with scikit-learn's interface, which SetFit takes as `model_head`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qpa_hf.heads.fitting import fit_head, one_pass, optimizer_of
from qpa_hf.heads.head import QuantumHead
from qpa_hf.heads.settings import HeadSettings
from qpa_hf.messages import shown, whole_number
from qpa_hf.reproducible import seeded

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        "`QuantumHeadClassifier` needs scikit-learn. Install it with `pip install 'qpa-hf[heads]'`, or use "
        "`QuantumHead`."
    ) from error


class QuantumHeadClassifier(ClassifierMixin, BaseEstimator):
    """A quantum head that is fitted to embeddings and labels; see `QuantumHead`.

    Args:
        n_qubits: the number of qubits of the measured circuit. This and all up to `train_circuit` are settings of the
            head, which `HeadSettings` explains.
        n_encoders: the number of encoders.
        n_layers: the number of layers of each encoder.
        n_main_layers: the number of layers of the measured circuit after the last upload.
        n_reuploads: the number of times that the latent vector is uploaded again.
        connectivity: the largest distance on the ring between two qubits that a block joins.
        fusion: the way from the encoders' expectations to one latent vector, "concatenate" or "mean".
        n_latent: the number of expectations of each encoder; None for as many as there is room for.
        constant: the amplitude beside the embedding that no embedding changes; 0 for none.
        shots: the number of measurements of each row, or per measured state as in "20x"; None for exact values.
        noise: the device whose errors are simulated, "torino" or "fez"; None for an ideal one.
        n_trajectories: the number of random courses of errors that are averaged for each row.
        train_circuit: whether the angles are trained; without it only the readout is, as a control.
        n_epochs: the number of passes over the rows.
        learning_rate: the first learning rate of Adam, which falls to zero.
        batch_size: the number of rows in a training step.
        class_weight: how much a row of each class counts, by label; "balanced" for the inverse of how often each
            occurs; None for all alike.
        device: the device on which torch computes.
        random_state: the seed of the first angles, the order of the rows, the shots and the errors.

    Attributes:
        head_: the fitted `QuantumHead`.
        classes_: the labels, in the order of the columns of `predict_proba`.
        n_features_in_: the length of the embeddings.

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
        class_weight: Any = None,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        # scikit-learn wants arguments kept as they came, and checked in `fit`: `clone` and `set_params` go by them.
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
        self.class_weight = class_weight
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> QuantumHeadClassifier:
        """Train a new head.

        Args:
            X: the embeddings, shape (n_rows, n_features).
            y: the labels, of any kind, shape (n_rows,).
            sample_weight: how much each row counts, shape (n_rows,); None for all alike.

        Raises:
            ValueError: for embeddings or labels that cannot be used, or settings that are not allowed.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        n_epochs, batch_size = (whole_number(name, getattr(self, name)) for name in ("n_epochs", "batch_size"))
        classes, labels = np.unique(y, return_inverse=True)
        weights = self._weights(X, y, classes, sample_weight)
        seed = self._begin(X.shape[1], classes)
        rows, targets = self._tensor(X), self._tensor(labels)
        fit_head(self.head_, rows, targets, n_epochs, self.learning_rate, batch_size, seed, weights)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> QuantumHeadClassifier:
        """Train on rows once, with Adam at the constant `learning_rate`; each call goes on where the last one ended.

        Args:
            X: the embeddings, shape (n_rows, n_features).
            y: the labels, shape (n_rows,).
            classes: all labels that will ever come; needed in the first call alone.
            sample_weight: how much each row counts, shape (n_rows,); None for all alike.

        Raises:
            ValueError: as `fit` does; for a label that is not among the classes, or other classes than before; and
                for balanced class weights, which need all labels at once.
        """
        is_first = not hasattr(self, "head_")
        X, y = validate_data(self, X, y, dtype=np.float32, reset=is_first)
        check_classification_targets(y)
        batch_size = whole_number("batch_size", self.batch_size)
        if self.class_weight == "balanced":
            raise ValueError(
                "`class_weight`='balanced' needs all labels at once. Pass a weight for each class to `partial_fit`."
            )
        if is_first and classes is None:
            raise ValueError("The first call of `partial_fit` needs `classes`. Pass all labels that will come.")
        known = self.classes_ if classes is None else np.unique(classes)
        if not is_first and not np.array_equal(known, self.classes_):
            raise ValueError(
                f"`classes`={shown(classes)} are others than before. Leave them out, or make a new model."
            )
        if len(unknown := np.setdiff1d(y, known)):
            raise ValueError(
                f"`y` has the label {unknown[0]}, which is not among `classes`. Pass all of them at first."
            )
        weights = self._weights(X, y, known, sample_weight)
        if is_first:
            self._begin(X.shape[1], known)
        if not hasattr(self, "optimizer_"):
            self.optimizer_ = optimizer_of(self.head_, self.learning_rate)
            self.n_passes_ = 0
        rng = seeded(self.head_.settings.seed, f"pass {self.n_passes_}")
        labels = self._tensor(np.searchsorted(known, y))
        for _ in one_pass(self.head_, self.optimizer_, self._tensor(X), labels, batch_size, rng, weights):
            pass
        self.n_passes_ += 1
        return self

    def _begin(self, n_features: int, classes: np.ndarray) -> int:
        """Make a new head, and return the seed that it was made of."""
        if len(classes) < 2:
            raise ValueError(f"All labels belong to one class, {classes[0]}. Pass rows of at least two classes.")
        seed = int(check_random_state(self.random_state).randint(2**31))
        settings = {name: getattr(self, name) for name in SETTINGS}
        self.classes_ = classes
        self.head_ = QuantumHead(n_features, len(classes), **settings, seed=seed).to(self.device)
        for name in ("optimizer_", "n_passes_"):  # of an earlier head
            if hasattr(self, name):
                delattr(self, name)
        return seed

    def _weights(self, X: np.ndarray, y: np.ndarray, classes: np.ndarray, sample_weight: Any) -> torch.Tensor | None:
        """Return how much each row counts, with a mean of 1; None where all count alike."""
        if sample_weight is None and self.class_weight is None:
            return None
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if self.class_weight is not None:
            by_class = compute_class_weight(self.class_weight, classes=classes, y=y)
            weights = weights * by_class[np.searchsorted(classes, y)]
        if not weights.sum() > 0:
            raise ValueError("All weights are zero, so no row counts. Pass some above zero.")
        return self._tensor((weights / weights.mean()).astype(np.float32))

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


# What the classifier hands on to the head unchanged.
SETTINGS = tuple(QuantumHeadClassifier().get_params().keys() & HeadSettings.__dataclass_fields__.keys())
