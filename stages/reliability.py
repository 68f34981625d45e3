"""How far a model's probabilities can be taken at their word, in bins of how sure it was."""

from typing import NamedTuple

import numpy as np

BINS = 15  # of equal width, as in the paper that calibration_error names


class Bin(NamedTuple):
    """Images that a model was about equally sure of.

    confidence: mean probability of the predicted class; right: share of them that it was right
    about; images: how many there are.
    """

    confidence: float
    right: float
    images: int


def reliability(right: np.ndarray, confidence: np.ndarray) -> list[Bin]:
    """The bins that hold images, least sure first.

    right: bool [n], whether the predicted class is the actual one; confidence: float [n], its
    probability, 0 to 1.
    """
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [number == which for which in np.unique(number)]
    return [Bin(confidence[b].mean(), right[b].mean(), int(b.sum())) for b in bins]


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """By how much the probability of the predicted class differs from how often it is right.

    On average over the images, in bins; 0 to 1, 0 is best. Arguments as of `reliability`. Source:
    expected calibration error, Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    gaps = [abs(b.confidence - b.right) * b.images for b in reliability(right, confidence)]
    return sum(gaps) / len(right)
