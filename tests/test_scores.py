"""The class scores are ridge regressions, and honest.  Run: pytest tests/test_scores.py"""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from test_svm import problem

from serving.fashion.model.exact import FEATURE_PLACES
from serving.fashion.model.kernel import Rbf
from stages.params import ClassScores
from stages.training import class_scores as module
from stages.training.class_scores import ROWS, FittedScores, fit_class_scores

CLASSES = 4
STEP = 2.0**-FEATURE_PLACES  # of scores


@pytest.fixture
def section() -> ClassScores:
    return ClassScores(landmarks=200, gamma=0.05, ridge=1e-4, folds=5, weight=1.0, seed=7)


def scored(features: np.ndarray, scores: FittedScores) -> np.ndarray:
    landmarks, gamma, weights = scores.arrays
    return Rbf(landmarks, float(gamma))(features) @ weights


def test_with_every_image_a_landmark_scores_are_those_of_scikit_learn(section: ClassScores):
    features, labels = problem(CLASSES, 300)
    every = section.model_copy(update={"landmarks": 300, "ridge": 1e-2})
    unseen = features[:50] + 0.3
    actual = scored(unseen, fit_class_scores(features, labels, every))
    targets = np.eye(CLASSES)[labels]
    ridge = KernelRidge(kernel="rbf", gamma=every.gamma, alpha=every.ridge * len(labels))
    expected = ridge.fit(features, targets - targets.mean(axis=0)).predict(unseen)
    assert np.allclose(actual, expected, atol=0.01)


def test_no_training_image_is_scored_by_a_regression_that_knew_its_label(section: ClassScores):
    features, _ = problem(CLASSES, 600)
    random = np.random.default_rng(1).integers(0, CLASSES, 600)
    scores = fit_class_scores(features, random, section)
    assert (scored(features, scores).argmax(axis=1) == random).mean() > 0.5
    assert (scores.out_of_fold.argmax(axis=1) == random).mean() < 0.35


def test_images_that_repeat_and_the_least_ridge_give_finite_scores(section: ClassScores):
    features, labels = problem(CLASSES, 100)
    least = section.model_copy(update={"ridge": 1e-9})
    scores = fit_class_scores(np.repeat(features, 4, axis=0), np.repeat(labels, 4), least)
    assert np.isfinite(scores.out_of_fold).all()
    assert np.isfinite(scores.arrays.weights).all()


def test_kernel_values_that_are_not_kept_change_nothing(
    section: ClassScores, monkeypatch: pytest.MonkeyPatch
):
    features, labels = problem(CLASSES, 3 * ROWS)
    kept = fit_class_scores(features, labels, section)
    monkeypatch.setattr(module, "CACHE_BYTES", (ROWS + 100) * 200 * 4)
    anew = fit_class_scores(features, labels, section)
    assert np.array_equal(kept.arrays.weights, anew.arrays.weights)
    assert np.array_equal(kept.out_of_fold, anew.out_of_fold)


def test_the_weight_scales_all_scores(section: ClassScores):
    features, labels = problem(CLASSES, 300)
    once, thrice = (
        fit_class_scores(features, labels, section.model_copy(update={"weight": weight}))
        for weight in (1.0, 3.0)
    )
    assert np.allclose(3 * once.out_of_fold, thrice.out_of_fold, atol=2 * STEP)
    assert np.allclose(3 * once.arrays.weights, thrice.arrays.weights)
