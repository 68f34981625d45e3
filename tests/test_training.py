"""Models learn, are repeatable and survive saving.  Run: pytest tests/test_training.py"""

import csv
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn.svm
from sklearn.pipeline import Pipeline
from xgboost import XGBClassifier

from serving.fashion.contract import PIXELS
from stages import train_sklearn, train_xgboost
from stages.dataset import Images
from stages.params import Params

type_of_images = pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])


@pytest.fixture(scope="session")
def svm(digits: tuple[Images, Images], params: Params) -> Pipeline:
    return train_sklearn.train(digits[0].images, digits[0].labels, params.svm)


@pytest.fixture(scope="session")
def trees(digits: tuple[Images, Images], params: Params) -> XGBClassifier:
    return train_xgboost.train(digits[0].images, digits[0].labels, params.xgboost)


def test_both_learn_digits(svm: Pipeline, trees: XGBClassifier, digits: tuple[Images, Images]):
    test = digits[1]
    assert (svm.predict(test.images) == test.labels).mean() > 0.97
    assert (trees.predict(test.images) == test.labels).mean() > 0.85


def test_the_svm_scales_pixels_to_0_to_1_in_float32(svm: Pipeline):
    scaled = svm[:-1].transform(np.full((2, PIXELS), 255, np.uint8))
    assert scaled.dtype == np.float32
    assert (scaled == 1).all()


@type_of_images
def test_labels_do_not_depend_on_the_type_of_the_pixels(
    svm: Pipeline, trees: XGBClassifier, digits: tuple[Images, Images], dtype: type
):
    images = digits[1].images
    for model in (svm, trees):
        assert np.array_equal(model.predict(images.astype(dtype)), model.predict(images))


def test_the_chosen_svm_labels_as_stock_scikit_learn_does(
    svm: Pipeline,
    digits: tuple[Images, Images],
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(train_sklearn, "engine", sklearn.svm)
    stock = train_sklearn.train(digits[0].images, digits[0].labels, params.svm)
    agree = stock.predict(digits[1].images) == svm.predict(digits[1].images)
    assert agree.mean() >= 0.99


def test_training_and_saving_twice_gives_the_same_bytes(
    tmp_path: Path, digits: tuple[Images, Images], params: Params
):
    images, labels = digits[0].images[:300], digits[0].labels[:300]
    for name in ("1", "2"):
        svm = train_sklearn.train(images, labels, params.svm)
        train_sklearn.save(tmp_path / name / "model.joblib", svm, images)
        trees = train_xgboost.train(images, labels, params.xgboost)
        train_xgboost.save(tmp_path / name / "model.json", trees, images)
        train_xgboost.write_curve(tmp_path / name / "curve.csv", trees)
    for name in ("model.joblib", "model.json", "curve.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_saved_svm_holds_no_class_of_this_project(
    tmp_path: Path, svm: Pipeline, digits: tuple[Images, Images]
):
    train_sklearn.save(tmp_path / "model.joblib", svm, digits[1].images)
    content = (tmp_path / "model.joblib").read_bytes()
    assert b"stages" not in content
    assert b"serving" not in content


def test_a_model_that_does_not_survive_saving_is_refused_and_leaves_no_file(
    tmp_path: Path,
    svm: Pipeline,
    digits: tuple[Images, Images],
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
):
    other = train_sklearn.train(digits[0].images, digits[0].labels[::-1], params.svm)
    monkeypatch.setattr(joblib, "load", lambda _: other)
    with pytest.raises(RuntimeError, match="reloaded, it labels images differently"):
        train_sklearn.save(tmp_path / "model.joblib", svm, digits[1].images)
    assert not list(tmp_path.iterdir())


def test_the_training_curve_has_a_line_a_round_and_falls(
    tmp_path: Path, trees: XGBClassifier, params: Params
):
    train_xgboost.write_curve(tmp_path / "curve.csv", trees)
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["round"]) for row in rows] == list(range(1, params.xgboost.n_estimators + 1))
    losses = [float(row["log_loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
