"""What is compared: quantum heads, their control, and classical classifiers on the same embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from qpa_hf.heads import QuantumHeadClassifier

RATES = (0.01, 0.03, 0.1)
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
MLP_EPOCHS = 30  # of the multilayer perceptrons, whatever the part: they are cheap
LINEAR_STEPS = 10_000


@dataclass(frozen=True)
class Budget:
    """How long a head is trained on a part."""

    n_epochs: int
    batch_size: int


@dataclass(frozen=True)
class Classifier:
    """One classifier, on all parts or some.

    Args:
        family: "quantum head", "control" or "classical".
        make: takes the chosen hyperparameter, the seed, the budget and the settings; returns an estimator.
        grid: values of the hyperparameter: a head's or perceptron's learning rate, or the inverse of a penalty.
        settings: handed to `make`.
        is_everywhere: whether it is run on all parts, or where heads are screened only.
        is_random: whether a seed matters where all rows are used.
        max_rows: training rows beyond which it takes too long.
    """

    family: str
    make: Callable[[float, int, Budget, dict[str, Any]], Any]
    grid: tuple[float, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    is_everywhere: bool = True
    is_random: bool = True
    max_rows: int | None = None


def _head(rate: float, seed: int, budget: Budget, settings: dict[str, Any]) -> Any:
    return QuantumHeadClassifier(
        learning_rate=rate, random_state=seed, n_epochs=budget.n_epochs, batch_size=budget.batch_size, **settings
    )


def _logistic(c: float, seed: int, budget: Budget, settings: dict[str, Any]) -> Any:
    return LogisticRegression(C=c, max_iter=LINEAR_STEPS)


def _linear_svm(c: float, seed: int, budget: Budget, settings: dict[str, Any]) -> Any:
    return LinearSVC(C=c, max_iter=LINEAR_STEPS)


def _rbf_svm(c: float, seed: int, budget: Budget, settings: dict[str, Any]) -> Any:
    return SVC(C=c)


def _perceptron(rate: float, seed: int, budget: Budget, settings: dict[str, Any]) -> Any:
    n_epochs = max(MLP_EPOCHS, budget.n_epochs)
    model = MLPClassifier(
        settings["widths"],
        activation="tanh",
        learning_rate_init=rate,
        batch_size=budget.batch_size,
        max_iter=n_epochs,
        n_iter_no_change=n_epochs,
        random_state=seed,
    )
    return make_pipeline(PCA(settings["components"], random_state=seed), model) if "components" in settings else model


def _screened(**settings: Any) -> Classifier:
    return Classifier("quantum head", _head, RATES, settings, is_everywhere=False)


HEAD, FROZEN, LOGISTIC = "quantum head", "frozen circuits", "logistic regression"
# The head has Q = 10, E = 1, N = 2, C = 1, 8 encoder layers and a constant amplitude; the names say what differs.
ARMS: dict[str, Classifier] = {
    HEAD: Classifier("quantum head", _head, RATES),
    "C = 4": Classifier("quantum head", _head, RATES, {"connectivity": 4}),
    "2 encoder layers, no constant": Classifier("quantum head", _head, RATES, {"n_layers": 2, "constant": 0.0}),
    FROZEN: Classifier("control", _head, RATES, {"train_circuit": False}),
    LOGISTIC: Classifier("classical", _logistic, PENALTIES, is_random=False),
    "linear SVM": Classifier("classical", _linear_svm, PENALTIES, is_random=False),
    "RBF SVM": Classifier("classical", _rbf_svm, PENALTIES, is_random=False, max_rows=10_000),
    "PCA to 12, MLP of 7": Classifier("classical", _perceptron, RATES, {"components": 12, "widths": (7,)}),
    "MLP of 1": Classifier("classical", _perceptron, RATES, {"widths": (1,)}),
    "MLP of 8": Classifier("classical", _perceptron, RATES, {"widths": (8,)}),
    "Q = 4": _screened(n_qubits=4),
    "Q = 7": _screened(n_qubits=7),
    "E = 2": _screened(n_encoders=2),
    "E = 2, mean": _screened(n_encoders=2, fusion="mean"),
    "E = 4, mean": _screened(n_encoders=4, fusion="mean"),
    "N = 0": _screened(n_reuploads=0),
    "N = 4": _screened(n_reuploads=4),
    "C = 2": _screened(connectivity=2),
    "2 encoder layers": _screened(n_layers=2),
    "16 encoder layers": _screened(n_layers=16),
    "no constant": _screened(constant=0.0),
    "100 shots": _screened(shots=100),
}


def n_trained(model: Any) -> int | None:
    """Return how many numbers labels have set, None for a kernel machine, which keeps sentences instead."""
    if hasattr(model, "steps"):
        model = model.steps[-1][1]
    if hasattr(model, "head_"):
        return sum(model.head_.n_trained().values())
    if isinstance(model, MLPClassifier):
        return sum(array.size for array in (*model.coefs_, *model.intercepts_))
    return model.coef_.size + model.intercept_.size if isinstance(model, (LogisticRegression, LinearSVC)) else None
