"""Scores of the classes: a kernel ridge regression on landmarks, which are training images."""

from typing import NamedTuple

import numpy as np

from .exact import FEATURE_PLACES, quantize
from .kernel import Rbf


class ScoreArrays(NamedTuple):
    """A fitted map from features to scores, plain arrays only.

    landmarks: float32 [m, k], features of m training images; gamma: float32 [], kernel width;
    weights: float32 [m, classes].
    """

    landmarks: np.ndarray
    gamma: np.ndarray
    weights: np.ndarray


class ScoreMap:
    """Computes scores by a fitted map.

    Scores are summed in float64 and rounded by far more than that errs, since a tree may turn on
    the last digit: an image has the same scores in any batch.
    """

    def __init__(self, fitted: ScoreArrays) -> None:
        self._kernel = Rbf(fitted.landmarks, float(fitted.gamma))
        self._weights = fitted.weights.astype(np.float64)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Float32 [n, classes], of float32 [n, k] features."""
        scores = self._kernel(features).astype(np.float64) @ self._weights
        return quantize(scores.astype(np.float32), FEATURE_PLACES)
