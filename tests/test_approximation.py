"""The approximation of the SVM.  Run: pytest tests/test_approximation.py"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pytest
from scratch import CountedRows, Digits, Fitted, files_in
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

    features: np.ndarray  # of those to train with, class by class, as folders of pictures are
    labels: np.ndarray
    images: np.ndarray  # those to test with
    evaluated: np.ndarray  # their features
    right: np.ndarray  # their labels


@pytest.fixture(scope="module")
def few(fitted: Fitted, digits: Digits) -> Few:
    train, test = (part.labels < CLASSES for part in digits)
    images = digits[1].images[test]
    order = np.flatnonzero(train)[np.argsort(digits[0].labels[train], kind="stable")]
    return Few(
        *(fitted[1][order], digits[0].labels[order]),
        *(images, fitted[0](images), digits[1].labels[test]),
    )


def labels_of(model: Pipeline, features: np.ndarray) -> np.ndarray:
    return model.classes_[pairwise_log_proba(decisions(model)(features), 1.0).argmax(axis=1)]


def library_decisions(model: Pipeline, features: np.ndarray) -> np.ndarray:
    """Those of scikit-learn itself, in float64, of all pairs, above 0 for the first class."""
    mapped = model[0].transform(features.astype(np.float64))
    return -np.stack([pair.decision_function(mapped) for pair in model[-1].estimators_], axis=1)


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf", "sigmoid"])
def test_every_kernel_learns_and_decides_as_scikit_learn(kernel: str, few: Few, section: Svm):
    chosen = section.model_copy(update={"kernel": kernel, "gamma": 1.0, "coef0": 0.1})
    model = train_sklearn.train(few.features, few.labels, chosen)
    expected, actual = library_decisions(model, few.evaluated), decisions(model)(few.evaluated)
    assert np.allclose(actual, expected, atol=1e-3)
    assert (labels_of(model, few.evaluated) == few.right).mean() > 0.96
    won = won_pairs(actual, CLASSES)
    clear = np.sort(won, axis=1)[:, -1] > np.sort(won, axis=1)[:, -2]
    assert (won.argmax(axis=1) == model.predict(few.evaluated))[clear].mean() > 0.99


@pytest.mark.parametrize("gamma", ["scale", "auto", 0.7])
def test_the_width_of_the_kernel_is_that_of_an_svc(gamma: str | float, few: Few):
    svc = SVC(gamma=gamma).fit(few.features[:400], few.labels[:400])
    found = train_sklearn.resolve_gamma(few.features[:400], gamma)
    assert found == pytest.approx(svc._gamma, rel=1e-4)


def test_it_is_saved_as_stock_objects_the_same_to_the_byte_and_decides_as_the_library(
    tmp_path: Path, few: Few, fitted: Fitted, params: Params, section: Svm
):
    features, labels, path = few.features[::2], few.labels[::2], tmp_path / "1/model.joblib"
    write_npz(tmp_path / FEATURES_FILE, fitted[0])
    for name in ("1", "2"):
        model = train_sklearn.train(features, labels, section)
        temperature = train_sklearn.calibrate(features, labels, section, params.calibration)
        more = {"features": tmp_path / FEATURES_FILE}
        train_sklearn.save(tmp_path / name, model, temperature, section, features, **more)
    assert files_in(tmp_path / "1") == files_in(tmp_path / "2")
    for module in (b"stages", b"serving", b"sklearnex"):
        assert module not in path.read_bytes()
    loaded = joblib.load(path)
    assert [type(part) for part in (loaded, *loaded)] == [Pipeline, Nystroem, OneVsOneClassifier]
    assert {type(one) for one in loaded[-1].estimators_} == {SGDClassifier}
    check_library(path, few.images)
    labels = load_classifier(path).classify(few.images)[LABELS]
    assert (labels == few.right).mean() > 0.9


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


def test_decisions_do_not_depend_on_the_size_of_the_batch(few: Few, section: Svm):
    model = train_sklearn.train(few.features, few.labels, section)
    rows = quantize(np.resize(few.features, (1001, few.features.shape[1])), FEATURE_PLACES)
    whole = decisions(model)(rows)
    for size in (1, 2, 63, 500):
        assert np.allclose(decisions(model)(rows[:size]), whole[:size], rtol=0, atol=1e-11)
