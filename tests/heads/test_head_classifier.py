"""`QuantumHeadClassifier` as scikit-learn's and SetFit's users have it."""

import pickle
import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from qpa_hf import heads
from qpa_hf.heads import HeadSettings, QuantumHeadClassifier

QUICK = {"n_qubits": 3, "n_layers": 2, "n_epochs": 60, "random_state": 0}


@pytest.fixture(scope="module")
def data():
    X, y = make_classification(80, 6, n_informative=4, class_sep=2.0, random_state=0)
    return X, np.array(["bad", "good"])[y]


@pytest.fixture(scope="module")
def fitted(data):
    return QuantumHeadClassifier(**QUICK).fit(*data)


def test_it_learns(fitted, data):
    assert fitted.score(*data) > 0.85


def test_probabilities_sum_to_one_and_decide(fitted, data):
    p = fitted.predict_proba(data[0])
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert (fitted.classes_[p.argmax(1)] == fitted.predict(data[0])).all()


def test_the_same_random_state_gives_the_same_head(fitted, data):
    again = clone(fitted).fit(*data)
    assert (again.predict_proba(data[0]) == fitted.predict_proba(data[0])).all()


def test_pickling_keeps_the_fitted_head(fitted, data):
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(data[0]) == fitted.predict_proba(data[0])).all()


def test_a_grid_search_sets_its_parameters(data):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), QuantumHeadClassifier(**QUICK)),
        {"quantumheadclassifier__n_reuploads": [0, 1]},
        cv=2,
    )
    assert search.fit(*data).best_estimator_[-1].head_.settings.n_features == 6


def test_rows_may_be_a_view_in_any_order(fitted, data):
    X = data[0].astype(np.float32)
    assert (fitted.predict(X[::-1]) == fitted.predict(X)[::-1]).all()


def test_all_settings_of_a_head_can_be_set():
    own = {"n_features", "n_classes", "seed"}  # known from the data, and the random state
    assert set(HeadSettings.__dataclass_fields__) - own <= set(QuantumHeadClassifier().get_params())


@pytest.mark.filterwarnings("ignore")  # checks that do not apply are skipped with a warning
def test_scikit_learns_own_checks_pass():
    model = QuantumHeadClassifier(n_qubits=3, n_layers=2, n_epochs=15, learning_rate=0.1, random_state=0)
    check_estimator(model, on_skip=None)


BAD = {
    "one class": ({}, ["a", "a", "a", "a"], "All labels belong to one class, a"),
    "no epochs": ({"n_epochs": 0}, ["a", "b", "a", "b"], "`n_epochs`=0 is not allowed"),
    "half a batch": ({"batch_size": 8.5}, ["a", "b", "a", "b"], "`batch_size`=8.5 is not allowed"),
    "settings of the head": ({"n_encoders": 4}, ["a", "b", "a", "b"], "4 encoders give 4 latent values"),
}


@pytest.mark.parametrize(("settings", "labels", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(settings, labels, message):
    with pytest.raises(ValueError, match=message):
        QuantumHeadClassifier(**QUICK | settings).fit(np.eye(4), labels)


def test_without_scikit_learn_the_classifier_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "qpa_hf.heads.classifier")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn. Install it with `pip install 'qpa-hf\[heads\]'`"):
        heads.QuantumHeadClassifier  # noqa: B018
