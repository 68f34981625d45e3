"""Models learn, are repeatable and survive saving.  Run: pytest tests/test_training.py"""

import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn.svm
from scratch import Digits, Fitted, Trees, fit_trees, read_csv
from sklearn.svm import SVC

from serving.fashion.model.svm import decisions
from stages import train_sklearn, train_xgboost
from stages.console import StageError
from stages.params import Params
from stages.train_xgboost import check_device


@pytest.fixture(scope="module")
def svm(digits: Digits, fitted: Fitted, params: Params) -> SVC:
    return train_sklearn.train(fitted[1], digits[0].labels, params.svm)


@pytest.fixture(scope="module")
def trees(digits: Digits, fitted: Fitted, params: Params) -> Trees:
    return fit_trees(fitted[1], digits[0].labels, params)


def test_trees_without_scores_see_the_components_alone(
    fitted: Fitted, digits: Digits, params: Params
):
    section = params.xgboost.scores.model_copy(update={"landmarks": None})
    without = params.xgboost.model_copy(update={"scores": section})
    inputs, scores = train_xgboost.tree_inputs(fitted[1], digits[0].labels, without)
    assert scores is None
    assert np.array_equal(inputs, fitted[1][:, : params.xgboost.components])


def test_the_chosen_engine_decides_as_stock_scikit_learn_does(
    svm: SVC, fitted: Fitted, digits: Digits, params: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train_sklearn, "engine", sklearn.svm)
    stock = train_sklearn.train(fitted[1], digits[0].labels, params.svm)
    features = fitted[0](digits[1].images)
    expected, actual = decisions(stock)(features), decisions(svm)(features)
    assert np.allclose(actual, expected, atol=0.02)


def test_a_class_of_which_a_sample_would_have_no_image_is_in_the_trial(
    fitted: Fitted, digits: Digits, params: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train_sklearn, "TRIAL", 60)
    of_class = [np.flatnonzero(digits[0].labels == label) for label in range(10)]
    rows = np.concatenate([*of_class[:9], of_class[9][:3]])
    features, labels = fitted[1][rows], digits[0].labels[rows]
    temperature = train_sklearn.calibrate(features, labels, params.svm, params.calibration)
    assert 0.001 <= temperature <= 1000


def test_a_saved_svm_is_a_stock_one(tmp_path: Path, svm: SVC, fitted: Fitted, params: Params):
    train_sklearn.save(tmp_path, svm, 1.0, params.svm, fitted[1], features=None)
    content = (tmp_path / "model.joblib").read_bytes()
    assert type(joblib.load(tmp_path / "model.joblib")) is SVC
    for module in (b"stages", b"serving", b"sklearnex", b"daal4py", b"onedal"):
        assert module not in content


def test_a_model_that_does_not_survive_saving_is_rejected_and_leaves_no_file(
    tmp_path: Path, svm: SVC, fitted: Fitted, params: Params, monkeypatch: pytest.MonkeyPatch
):
    other = SVC().fit(fitted[1], np.arange(len(fitted[1])) % 10)
    monkeypatch.setattr(joblib, "load", lambda _: other)
    with pytest.raises(RuntimeError, match="reloaded, it labels rows differently"):
        train_sklearn.save(tmp_path, svm, 1.0, params.svm, fitted[1], features=None)
    assert not list(tmp_path.iterdir())


def test_the_training_curve_has_a_line_a_round_and_falls(
    tmp_path: Path, trees: Trees, params: Params
):
    train_xgboost.write_curve(tmp_path / "curve.csv", trees.trained.losses)
    rows = read_csv(tmp_path / "curve.csv")
    assert [int(row["round"]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) <= params.xgboost.n_estimators
    losses = [float(row["training"]) for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert float(rows[-1]["held_out"]) < float(rows[0]["held_out"])


def test_boosting_stops_where_the_loss_of_held_out_images_is_least(
    fitted: Fitted, digits: Digits, params: Params
):
    changes = {"n_estimators": 200, "early_stopping_rounds": 3, "learning_rate": 1.0}
    section = params.xgboost.model_copy(update=changes)
    labels = digits[0].labels[:400]
    trained = train_xgboost.fit(fitted[1][:400], labels, section, params.calibration)
    losses = trained.losses["held_out"]
    rounds = trained.model.get_booster().num_boosted_rounds()
    assert losses[rounds - 1] == min(losses)
    assert len(losses) == rounds + 3 < 200


def test_without_early_stopping_every_round_is_boosted(
    fitted: Fitted, digits: Digits, params: Params
):
    section = params.xgboost.model_copy(update={"early_stopping_rounds": None, "n_estimators": 4})
    labels = digits[0].labels[:400]
    trained = train_xgboost.fit(fitted[1][:400], labels, section, params.calibration)
    assert trained.model.get_booster().num_boosted_rounds() == 4


def test_a_gpu_that_is_not_there_is_one_line():
    check_device("cpu")
    if shutil.which("nvidia-smi"):
        pytest.skip("a GPU is there")
    with pytest.raises(StageError, match=r"xgboost\.device is cuda, but XGBoost finds no GPU") as e:
        check_device("cuda")
    assert "\n" not in str(e.value)
