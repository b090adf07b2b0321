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
    # Equal up to float32's rounding, as `test_a_weight_of_two_is_a_row_that_stands_twice` says; the check wants 1e-7.
    rounded = {"check_sample_weight_equivalence_on_dense_data": "weights and repeated rows are rounded apart"}
    check_estimator(model, on_skip=None, expected_failed_checks=rounded)


def test_a_weight_of_two_is_a_row_that_stands_twice(data):
    X, y = data[0][:20], data[1][:20]
    weights = np.arange(20) % 3
    settings = QUICK | {"batch_size": 100}
    weighted = QuantumHeadClassifier(**settings).fit(X, y, sample_weight=weights)
    repeated = QuantumHeadClassifier(**settings).fit(np.repeat(X, weights, 0), np.repeat(y, weights))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-4)


def test_weights_of_classes_are_those_of_their_rows(data):
    X, y = data
    by_class = QuantumHeadClassifier(**QUICK, class_weight={"good": 3.0, "bad": 1.0}).fit(X, y)
    by_row = QuantumHeadClassifier(**QUICK).fit(X, y, sample_weight=np.where(y == "good", 3.0, 1.0))
    np.testing.assert_array_equal(by_class.predict_proba(X), by_row.predict_proba(X))
    is_good = y == "good"
    few = np.concatenate([np.flatnonzero(is_good), np.flatnonzero(~is_good)[:5]])
    plain = QuantumHeadClassifier(**QUICK).fit(X[few], y[few])
    balanced = QuantumHeadClassifier(**QUICK, class_weight="balanced").fit(X[few], y[few])
    assert balanced.predict_proba(X[~is_good])[:, 0].mean() > plain.predict_proba(X[~is_good])[:, 0].mean()


def test_weights_of_one_change_little_and_none_change_no_bit(fitted, data):
    again = QuantumHeadClassifier(**QUICK).fit(*data, sample_weight=None)
    np.testing.assert_array_equal(again.predict_proba(data[0]), fitted.predict_proba(data[0]))
    ones = QuantumHeadClassifier(**QUICK).fit(*data, sample_weight=np.ones(80))
    np.testing.assert_allclose(ones.predict_proba(data[0]), fitted.predict_proba(data[0]), atol=1e-3)


def test_it_learns_in_parts_and_goes_on_after_a_pickle(data):
    X, y = data
    model = QuantumHeadClassifier(**QUICK)
    for i in range(40):
        part = slice(0, 40) if i % 2 else slice(40, 80)
        model.partial_fit(X[part], y[part], classes=["good", "bad"] if i == 0 else None)
        if i == 20:
            kept = pickle.dumps(model)
    again = pickle.loads(kept)
    for i in range(21, 40):
        part = slice(0, 40) if i % 2 else slice(40, 80)
        again.partial_fit(X[part], y[part])
    assert model.score(X, y) > 0.85
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


PARTS = {
    "no classes at first": ({}, {}, "The first call of `partial_fit` needs `classes`"),
    "a label that is unknown": ({}, {"classes": ["a", "c"]}, "`y` has the label b, which is not among"),
    "one class": ({}, {"classes": ["a"]}, "has the label b"),
    "balanced weights": ({"class_weight": "balanced"}, {"classes": ["a", "b"]}, "needs all labels at once"),
    "no weight": ({}, {"classes": ["a", "b"], "sample_weight": [0, 0, 0, 0]}, "must contain at least one non-zero"),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts_that_cannot_be_learned_are_refused(case):
    settings, more, message = PARTS[case]
    with pytest.raises(ValueError, match=message):
        QuantumHeadClassifier(**QUICK | settings).partial_fit(np.eye(4), ["a", "b", "a", "b"], **more)


def test_classes_that_all_weigh_nothing_are_refused():
    with pytest.raises(ValueError, match="All weights are zero"):
        QuantumHeadClassifier(**QUICK, class_weight={"a": 0, "b": 0}).fit(np.eye(4), ["a", "b", "a", "b"])


def test_other_classes_than_before_are_refused():
    model = QuantumHeadClassifier(**QUICK).fit(np.eye(4), ["a", "b", "a", "b"])
    with pytest.raises(ValueError, match="are others than before"):
        model.partial_fit(np.eye(4), ["a", "b", "a", "b"], classes=["a", "b", "c"])


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
