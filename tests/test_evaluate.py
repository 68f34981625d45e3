"""Wrong predictions and low metrics are errors.  Run: pytest tests/test_evaluate.py"""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from serving.client import Outputs
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.model.svm import decisions
from serving.launch import Model
from stages.console import StageError
from stages.data.processed import Images
from stages.evaluate import check_accuracy
from stages.evaluation.checks import check_equal, check_library
from stages.evaluation.metrics import (
    Bin,
    calibration_error,
    evaluation_metrics,
    recall,
    recorded,
    reliability,
)
from stages.params import Calibration
from stages.training.calibration import fit_temperature, hold_out

MODEL = Model("fashion-sklearn", "v1", Path("model.joblib"))


def outputs(*labels: int) -> Outputs:
    """Outputs that are 80 % sure of each label, of three classes."""
    probabilities = np.full((len(labels), 3), 0.1)
    probabilities[np.arange(len(labels)), labels] = 0.8
    return {LABELS: np.array(labels), PROBABILITIES: probabilities}


def test_scores_are_those_computed_by_hand():
    data = Images(np.zeros((4, 784)), np.array([0, 0, 1, 1]), ("no", "yes", "unseen"))
    predictions = recorded(outputs(0, 1, 1, 1))
    assert evaluation_metrics(data, predictions) == {
        "accuracy": 0.75,
        "calibration_error": 0.05,
        "log_loss": round(-(3 * np.log(0.8) + np.log(0.1)) / 4, 6),
        "macro_f1": round((2 / 3 + 4 / 5) / 2, 6),
        "images": 4,
    }
    assert recall(data, predictions) == {"no": 0.5, "yes": 1.0}


def test_a_probability_that_is_recorded_as_nothing_costs_a_finite_loss():
    data = Images(np.zeros((1, 784)), np.array([1]), ("no", "yes"))
    certain = recorded({LABELS: np.array([0]), PROBABILITIES: np.array([[1 - 1e-9, 1e-9]])})
    assert evaluation_metrics(data, certain)["log_loss"] == round(-np.log(5e-7), 6)


def test_a_served_prediction_that_differs_from_the_offline_one_is_an_error():
    check_equal(MODEL, outputs(1, 2), outputs(1, 2))
    expected = "1 of 2 served labels differ .* first image 1: served 0, offline 2"
    with pytest.raises(StageError, match=expected):
        check_equal(MODEL, outputs(1, 0), outputs(1, 2))
    off = outputs(1, 2)
    off[PROBABILITIES][1, 0] += 1e-3
    with pytest.raises(StageError, match=r"a served probability is 0.001 off the offline one"):
        check_equal(MODEL, off, outputs(1, 2))
    off[PROBABILITIES][1, 0] = np.nan
    with pytest.raises(StageError, match="a served probability is nan off"):
        check_equal(MODEL, off, outputs(1, 2))


def test_an_accuracy_below_the_minimum_is_an_error():
    check_accuracy({"fashion-sklearn": 0.8}, 0.8)
    with pytest.raises(StageError) as error:
        check_accuracy({"good": 0.9, "fashion-sklearn": 0.7999, "worse": 0.5}, 0.8)
    assert str(error.value).splitlines() == [
        f"{name}, expected at least 0.8 (params.yaml: evaluate.min_accuracy)"
        for name in ("fashion-sklearn: accuracy 0.7999", "worse: accuracy 0.5000")
    ]


def test_an_svm_whose_decisions_are_not_those_of_scikit_learn_is_an_error(
    repository: Path, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    (path,) = repository.rglob("model.joblib")
    check_library(path, images)
    monkeypatch.setattr(
        "stages.evaluation.checks.decisions", lambda svm: lambda rows: decisions(svm)(rows) + 0.01
    )
    with pytest.raises(StageError, match=r"model.joblib: a decision is 0.01 off scikit-learn's"):
        check_library(path, images)


@pytest.mark.parametrize("temperature", [0.2, 1, 5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float):
    random = np.random.default_rng(1)
    decisions = random.normal(0, 3, (20_000, 4))
    chances = softmax(decisions / temperature, axis=1).cumsum(axis=1)
    labels = (chances < random.random((len(decisions), 1))).sum(axis=1)
    found = fit_temperature(lambda t: log_softmax(decisions / t, axis=1), labels)
    assert found == pytest.approx(temperature, rel=0.05)


RIGHT, CONFIDENCE = np.array([True, False, True, True]), np.array([0.9, 0.9, 0.6, 1.0])


def test_the_calibration_error_is_that_computed_by_hand():
    by_hand = (abs(1.8 - 1) + abs(0.6 - 1) + abs(1.0 - 1)) / 4
    assert calibration_error(RIGHT, CONFIDENCE) == pytest.approx(by_hand)


def test_bins_of_confidence_are_those_found_by_hand_and_empty_ones_are_left_out():
    assert reliability(RIGHT, CONFIDENCE) == [Bin(0.6, 1.0, 1), Bin(0.9, 0.5, 2), Bin(1.0, 1.0, 1)]


def test_at_most_a_fifth_of_the_images_is_held_out_but_one_at_least():
    calibration = Calibration(held_out=5000, seed=7)
    for images, held_out in ((60_000, 5000), (1000, 200), (4, 1)):
        rest, chosen = hold_out(np.arange(images) % 2, calibration)
        assert (len(rest), len(chosen)) == (images - held_out, held_out)
