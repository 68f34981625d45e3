"""The approximation of the SVM.  Run: pytest tests/test_approximation.py"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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

LANDMARKS, CLASSES = 200, 5


@pytest.fixture(scope="module")
def section(params: Params) -> Svm:
    return params.svm.model_copy(update={"approximation": LANDMARKS})


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nystroem, "BLOCK", 500)
        patch.setattr(nystroem, "PASSES", (4, 4))
        yield


class Few(NamedTuple):
    """The digits below 5, which have 10 pairs of classes to train; all digits have 45."""

    features: np.ndarray  # of those to train with
    labels: np.ndarray
    images: np.ndarray  # those to test with
    evaluated: np.ndarray  # their features
    right: np.ndarray  # their labels


@pytest.fixture(scope="module")
def few(fitted: Fitted, digits: Digits) -> Few:
    train, test = (part.labels < CLASSES for part in digits)
    images = digits[1].images[test]
    return Few(
        *(fitted[1][train], digits[0].labels[train]),
        *(images, fitted[0](images), digits[1].labels[test]),
    )


@pytest.fixture(scope="module")
def model(few: Few, section: Svm) -> Pipeline:
    return train_sklearn.train(few.features, few.labels, section)


def labels_of(model: Pipeline, features: np.ndarray) -> np.ndarray:
    return model.classes_[pairwise_log_proba(decisions(model)(features), 1.0).argmax(axis=1)]


def library_decisions(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """Those of scikit-learn itself, in float64, of all pairs, above 0 for the first class."""
    mapped = model[0].transform(features.astype(np.float64))
    return -np.stack([pair.decision_function(mapped) for pair in model[-1].estimators_], axis=1)


def test_it_learns_digits_and_labels_as_the_pipeline_does(model: Pipeline, few: Few):
    labels = labels_of(model, few.evaluated)
    assert (labels == few.right).mean() > 0.96
    assert (labels == model.predict(few.evaluated)).mean() > 0.98
    won = won_pairs(decisions(model)(few.evaluated), CLASSES)
    clear = np.sort(won, axis=1)[:, -1] > np.sort(won, axis=1)[:, -2]
    assert (won.argmax(axis=1) == model.predict(few.evaluated))[clear].all()


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
def test_every_kernel_learns_and_decides_as_scikit_learn(kernel: str, few: Few, section: Svm):
    chosen = section.model_copy(update={"kernel": kernel, "gamma": 1.0, "coef0": 0.1})
    model = train_sklearn.train(few.features, few.labels, chosen)
    expected = library_decisions(model, few.evaluated)
    assert np.allclose(decisions(model)(few.evaluated), expected, atol=1e-3)
    assert (labels_of(model, few.evaluated) == few.right).mean() > 0.96


@pytest.mark.parametrize("gamma", ["scale", "auto", 0.7])
def test_the_width_of_the_kernel_is_that_of_an_svc(gamma: str | float, few: Few):
    rows, labels = few.features[:400], few.labels[:400]
    resolved = SVC(gamma=train_sklearn.resolve_gamma(rows, gamma)).fit(rows, labels)
    svc = SVC(gamma=gamma).fit(rows, labels)
    assert np.allclose(resolved.decision_function(rows), svc.decision_function(rows), atol=1e-3)


def test_it_is_of_stock_objects_and_the_same_to_the_byte(
    tmp_path: Path, few: Few, params: Params, section: Svm
):
    features, labels = few.features[:400], few.labels[:400]
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


def test_images_sorted_by_class_train_as_well(few: Few, section: Svm):
    order = np.argsort(few.labels, kind="stable")
    model = train_sklearn.train(few.features[order], few.labels[order], section)
    assert (labels_of(model, few.evaluated) == few.right).mean() > 0.97


def test_only_blocks_of_the_features_are_read(
    few: Few, section: Svm, monkeypatch: pytest.MonkeyPatch
):
    features: Any = CountedRows(few.features)
    monkeypatch.setattr(train_sklearn, "BLOCK", 400)
    chosen = section.model_copy(update={"gamma": "scale"})
    model = train_sklearn.train(features, few.labels, chosen)
    assert 0 < features.most <= nystroem.BLOCK
    other = train_sklearn.train(few.features, few.labels, chosen)
    assert np.array_equal(decisions(model)(few.features), decisions(other)(few.features))


def test_two_classes_are_separated(few: Few, section: Svm):
    rows = np.isin(few.labels, [3, 4])
    model = train_sklearn.train(few.features[rows], few.labels[rows] == 4, section)
    features = few.features[rows]
    assert decisions(model)(features).shape == (rows.sum(), 1)
    assert (labels_of(model, features) == model.predict(features)).all()
    assert (model.predict(features) == (few.labels[rows] == 4)).mean() > 0.99
    assert np.allclose(library_decisions(model, features), decisions(model)(features), atol=1e-3)


def test_decisions_do_not_depend_on_the_size_of_the_batch(model: Pipeline, few: Few):
    rows = quantize(np.resize(few.features, (1001, few.features.shape[1])), FEATURE_PLACES)
    whole = decisions(model)(rows)
    for size in (1, 2, 63, 500):
        assert np.allclose(decisions(model)(rows[:size]), whole[:size], rtol=0, atol=1e-11)


def test_what_is_saved_decides_as_the_library_and_labels_the_digits(
    tmp_path: Path, model: Pipeline, fitted: Fitted, few: Few, section: Svm
):
    train_sklearn.save(tmp_path, model, 1.0, section, few.features, features=None)
    write_npz(tmp_path / FEATURES_FILE, fitted[0])
    check_library(tmp_path / "model.joblib", few.images)
    labels = load_classifier(tmp_path / "model.joblib").classify(few.images)[LABELS]
    assert (labels == few.right).mean() > 0.95
