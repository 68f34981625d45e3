"""What the boosted trees see of an image's features: some of them, and a score for each class.

A tree cuts along one feature at a time; the scores, of a kernel ridge regression on landmarks
(training images), are directions worth cutting.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

ROWS = 4000  # of images a product, which bounds the memory: ROWS × landmarks × 4 bytes


class Scores(NamedTuple):
    """A fitted kernel ridge regression of the classes, plain arrays only.

    columns: int, how many of the leading features the trees see beside the scores; landmarks:
    float32 [m, k], features of m training images; gamma: float32 [], kernel width; weights: float32
    [m, classes].
    """

    columns: np.ndarray
    landmarks: np.ndarray
    gamma: np.ndarray
    weights: np.ndarray


def read_scores(path: Path) -> Scores:
    """Read what np.savez wrote of a Scores."""
    with np.load(path, allow_pickle=False) as content:
        return Scores(**content)


def tree_inputs(features: np.ndarray, scores: Scores) -> np.ndarray:
    """The leading features, then the scores; float32 [n, columns + classes].

    features: float32 [n, k].
    """
    starts = range(0, len(features), ROWS)
    parts = [
        kernel(features[start : start + ROWS], scores.landmarks, scores.gamma) @ scores.weights
        for start in starts
    ]
    return np.hstack([features[:, : scores.columns], np.concatenate(parts)])


def kernel(rows: np.ndarray, landmarks: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """exp(-gamma · squared distance) of rows, float32 [n, k], to landmarks; float32 [n, m]."""
    values = rows @ landmarks.T
    values *= 2
    values -= (rows**2).sum(axis=1)[:, None]
    values -= (landmarks**2).sum(axis=1)
    values *= gamma
    return np.exp(values, out=values)
