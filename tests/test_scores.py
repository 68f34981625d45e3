"""The class scores that the trees see are honest.  Run: pytest tests/test_scores.py"""

import numpy as np
import pytest
from sklearn.datasets import make_classification

from serving.fashion.trees import ROWS, tree_inputs
from stages.errors import StageError
from stages.params import ClassScores
from stages.scores import fit_scores

CLASSES = 4


@pytest.fixture
def section() -> ClassScores:
    return ClassScores(landmarks=200, gamma=0.05, ridge=1e-4, folds=5, seed=7)


def problem(size: int) -> tuple[np.ndarray, np.ndarray]:
    features, labels = make_classification(
        size, 12, n_informative=8, n_classes=CLASSES, random_state=3
    )
    return features.astype(np.float32), labels


def test_scores_tell_classes_apart_on_images_not_seen(section: ClassScores):
    features, labels = problem(2000)
    scores, held_out = fit_scores(features[:1500], labels[:1500], 5, section)
    inputs = tree_inputs(features[1500:], scores)
    assert inputs.shape == (500, 5 + CLASSES)
    assert inputs.dtype == np.float32
    assert np.array_equal(inputs[:, :5], features[1500:, :5])
    unseen = (inputs[:, 5:].argmax(axis=1) == labels[1500:]).mean()
    assert unseen > 0.8
    assert (held_out.argmax(axis=1) == labels[:1500]).mean() == pytest.approx(unseen, abs=0.05)


def test_no_training_image_is_scored_by_a_regression_that_knew_its_label(section: ClassScores):
    features, _ = problem(600)
    random = np.random.default_rng(1).integers(0, CLASSES, 600)
    scores, held_out = fit_scores(features, random, 5, section)
    knew = (tree_inputs(features, scores)[:, 5:].argmax(axis=1) == random).mean()
    assert knew > 0.5
    assert (held_out.argmax(axis=1) == random).mean() < 0.35


def test_scores_of_a_batch_are_those_of_its_rows(section: ClassScores):
    features, labels = problem(300)
    scores, _ = fit_scores(features, labels, 0, section)
    many = np.resize(features, (ROWS + 3, features.shape[1]))
    together = tree_inputs(many, scores)
    alone = np.concatenate([tree_inputs(row[None], scores) for row in many[-5:]])
    assert np.allclose(together[-5:], alone, atol=1e-4)


def test_a_ridge_too_small_for_landmarks_that_repeat_is_refused(section: ClassScores):
    features, labels = problem(100)
    tiny = section.model_copy(update={"ridge": 1e-300})
    with pytest.raises(StageError, match=r"scores.ridge is 1e-300; expected more, for 200"):
        fit_scores(np.repeat(features, 4, axis=0), np.repeat(labels, 4), 0, tiny)
