"""The approximation of the SVM.  Run: pytest tests/test_approximation.py"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from scratch import CountedRows, Digits, Fitted
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import SGDClassifier
from sklearn.multiclass import OneVsOneClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from test_svm import won_pairs

from serving.fashion.contract import FEATURES_FILE, LABELS
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.model.exact import FEATURE_PLACES, quantize
from serving.fashion.model.svm import decisions, pairwise_log_proba
from stages import train_sklearn
from stages.data.arrays import write_npz
from stages.evaluation.checks import check_library
from stages.params import Params, Svm
from stages.training import nystroem

LANDMARKS = 200


@pytest.fixture(scope="module")
def section(params: Params) -> Svm:
    return params.svm.model_copy(update={"approximation": LANDMARKS})


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nystroem, "BLOCK", 500)
        patch.setattr(nystroem, "PASSES", (4, 4))
        yield


@pytest.fixture(scope="module")
def evaluated(fitted: Fitted, digits: Digits) -> np.ndarray:
    """The features of the digits to test with."""
    return fitted[0](digits[1].images)


@pytest.fixture(scope="module")
def model(digits: Digits, fitted: Fitted, section: Svm) -> Pipeline:
    return train_sklearn.train(fitted[1], digits[0].labels, section)


def labels_of(model: Pipeline, features: np.ndarray) -> np.ndarray:
    return model.classes_[pairwise_log_proba(decisions(model)(features), 1.0).argmax(axis=1)]


def library_decisions(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """Those of scikit-learn itself, in float64, of all pairs, above 0 for the first class."""
    mapped = model[0].transform(features.astype(np.float64))
    return -np.stack([pair.decision_function(mapped) for pair in model[-1].estimators_], axis=1)


def test_it_learns_digits_and_labels_as_the_pipeline_does(
    model: Pipeline, evaluated: np.ndarray, digits: Digits
):
    labels = labels_of(model, evaluated)
    assert (labels == digits[1].labels).mean() > 0.96
    assert (labels == model.predict(evaluated)).mean() > 0.98
    won = won_pairs(decisions(model)(evaluated), 10)
    clear = np.sort(won, axis=1)[:, -1] > np.sort(won, axis=1)[:, -2]
    assert (won.argmax(axis=1) == model.predict(evaluated))[clear].all()


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
def test_every_kernel_learns_and_decides_as_scikit_learn(
    kernel: str, fitted: Fitted, evaluated: np.ndarray, digits: Digits, section: Svm
):
    chosen = section.model_copy(update={"kernel": kernel, "gamma": 1.0, "coef0": 0.1})
    model = train_sklearn.train(fitted[1], digits[0].labels, chosen)
    expected = library_decisions(model, evaluated)
    assert np.allclose(decisions(model)(evaluated), expected, atol=1e-3)
    assert (labels_of(model, evaluated) == digits[1].labels).mean() > 0.94


@pytest.mark.parametrize("gamma", ["scale", "auto", 0.7])
def test_the_width_of_the_kernel_is_that_of_an_svc(
    gamma: str | float, fitted: Fitted, digits: Digits
):
    rows, labels = fitted[1][:400], digits[0].labels[:400]
    own = SVC(gamma=train_sklearn.resolve_gamma(rows, gamma)).fit(rows, labels)
    svc = SVC(gamma=gamma).fit(rows, labels)
    assert np.allclose(own.decision_function(rows), svc.decision_function(rows), atol=1e-3)


def test_it_is_of_stock_objects_and_the_same_to_the_byte(
    tmp_path: Path, fitted: Fitted, digits: Digits, params: Params, section: Svm
):
    features, labels = fitted[1][:400], digits[0].labels[:400]
    for name in ("1", "2"):
        model = train_sklearn.train(features, labels, section)
        temperature = train_sklearn.calibrate(features, labels, section, params.calibration)
        train_sklearn.save(tmp_path / name, model, temperature, section, features, features=None)
    for file in ("model.joblib", "training.json"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
    content = (tmp_path / "1/model.joblib").read_bytes()
    for module in (b"stages", b"serving", b"sklearnex"):
        assert module not in content
    loaded = joblib.load(tmp_path / "1/model.joblib")
    assert [type(part) for part in (loaded, *loaded)] == [Pipeline, Nystroem, OneVsOneClassifier]
    assert {type(one) for one in loaded[-1].estimators_} == {SGDClassifier}


def test_images_sorted_by_class_train_as_well(
    fitted: Fitted, evaluated: np.ndarray, digits: Digits, section: Svm
):
    order = np.argsort(digits[0].labels, kind="stable")
    model = train_sklearn.train(fitted[1][order], digits[0].labels[order], section)
    assert (labels_of(model, evaluated) == digits[1].labels).mean() > 0.96


def test_only_blocks_of_the_features_are_read(
    fitted: Fitted, digits: Digits, section: Svm, monkeypatch: pytest.MonkeyPatch
):
    features: Any = CountedRows(fitted[1])
    monkeypatch.setattr(train_sklearn, "BLOCK", 400)
    chosen = section.model_copy(update={"gamma": "scale"})
    model = train_sklearn.train(features, digits[0].labels, chosen)
    assert 0 < features.most <= nystroem.BLOCK
    other = train_sklearn.train(fitted[1], digits[0].labels, chosen)
    assert np.array_equal(decisions(model)(fitted[1]), decisions(other)(fitted[1]))


def test_two_classes_are_told_apart(fitted: Fitted, digits: Digits, section: Svm):
    rows = np.isin(digits[0].labels, [3, 8])
    model = train_sklearn.train(fitted[1][rows], digits[0].labels[rows] == 8, section)
    features = fitted[1][rows]
    assert decisions(model)(features).shape == (rows.sum(), 1)
    assert (labels_of(model, features) == model.predict(features)).all()
    assert (model.predict(features) == (digits[0].labels[rows] == 8)).mean() > 0.99
    assert np.allclose(library_decisions(model, features), decisions(model)(features), atol=1e-3)


def test_more_landmarks_than_images_are_all_images(fitted: Fitted, digits: Digits, section: Svm):
    model = train_sklearn.train(fitted[1][:100], digits[0].labels[:100], section)
    assert len(model[0].components_) == 100


def test_decisions_do_not_depend_on_the_size_of_the_batch(model: Pipeline, fitted: Fitted):
    rows = quantize(np.resize(fitted[1], (1001, fitted[1].shape[1])), FEATURE_PLACES)
    whole = decisions(model)(rows)
    for size in (1, 2, 63, 500):
        assert np.allclose(decisions(model)(rows[:size]), whole[:size], rtol=0, atol=1e-11)


def test_what_is_saved_decides_as_the_library_and_labels_the_digits(
    tmp_path: Path, model: Pipeline, fitted: Fitted, digits: Digits, section: Svm
):
    train_sklearn.save(tmp_path, model, 1.0, section, fitted[1], features=None)
    write_npz(tmp_path / FEATURES_FILE, fitted[0])
    check_library(tmp_path / "model.joblib", digits[1].images)
    labels = load_classifier(tmp_path / "model.joblib").classify(digits[1].images)[LABELS]
    assert (labels == digits[1].labels).mean() > 0.95
