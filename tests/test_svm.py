"""Matrix products decide as scikit-learn's SVC does.  Run: pytest tests/test_svm.py"""

from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.svm import SVC

from serving.fashion.model.svm import decisions, pairwise_log_proba


def problem(classes: int, size: int = 600) -> tuple[np.ndarray, np.ndarray]:
    features, labels = make_classification(
        size, 12, n_informative=8, n_classes=classes, class_sep=0.7, random_state=3
    )
    return features.astype(np.float32), labels


def won_pairs(decisions: np.ndarray, classes: int) -> np.ndarray:
    """How many of its pairs each class wins, as libsvm counts."""
    won = np.zeros((len(decisions), classes), int)
    for (i, j), first in zip(combinations(range(classes), 2), (decisions > 0).T, strict=True):
        won[:, i] += first
        won[:, j] += ~first
    return won


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": "linear"},
        {"kernel": "rbf", "gamma": 0.05},
        {"kernel": "poly", "degree": 4, "coef0": 0.5},
        {"kernel": "sigmoid", "gamma": 0.01, "coef0": -0.1},
    ],
    ids=lambda settings: settings["kernel"],
)
def test_every_kernel_and_number_of_classes_decides_and_labels_as_scikit_learn(
    classes: int, settings: dict[str, object]
):
    features, labels = problem(classes)
    svc = SVC(decision_function_shape="ovo", **settings).fit(features[:300], labels[:300])
    expected = svc.decision_function(features).reshape(len(features), -1)
    decided = decisions(svc)(features)
    assert np.allclose(decided, -expected if classes == 2 else expected, atol=2e-3, rtol=1e-3)
    assert (won_pairs(decided, classes).argmax(axis=1) == svc.predict(features)).mean() > 0.995


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_probabilities_add_up_to_1_and_follow_a_class_that_wins_every_pair(classes: int):
    pairs = list(combinations(range(classes), 2))
    for winner in range(classes):
        decisions = np.array([[(i == winner) - (j == winner) for i, j in pairs]], np.float32)
        for temperature in (0.01, 1.0, 100.0):
            probabilities = np.exp(pairwise_log_proba(decisions, temperature))
            assert probabilities.sum() == pytest.approx(1)
            assert probabilities.argmax() == winner


def test_two_classes_get_the_logistic_function_of_their_decision():
    decisions = np.array([[-3.0], [0.0], [0.5]])
    expected = 1 / (1 + np.exp(-decisions[:, 0]))
    assert np.allclose(np.exp(pairwise_log_proba(decisions, 1.0))[:, 0], expected)


def test_a_large_decision_gives_a_finite_log_probability():
    assert np.isfinite(pairwise_log_proba(np.array([[1e4, -1e4, 1e4]]), 1e-3)).all()
