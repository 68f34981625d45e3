"""Metrics of a model's predictions, as they are recorded: rounded first, then counted."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score

from serving.client import Outputs
from serving.fashion.contract import LABELS, PROBABILITIES
from stages.data.processed import Images

# Of all that is recorded. A server's sums are rounded by the requests that it computed together;
# what is counted of rounded values (bins, an order, a mean) is the same whichever those were.
DECIMALS = 6
BINS = 15  # of equal width, as in the paper that calibration_error names


class Predictions(NamedTuple):
    """Of a model. labels: int64 [n]; probabilities: float64 [n, classes], to DECIMALS."""

    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """Probabilities of the labels, float64 [n]."""
        return self.probabilities.max(axis=1)


def recorded(outputs: Outputs) -> Predictions:
    return Predictions(outputs[LABELS], outputs[PROBABILITIES].round(DECIMALS))


def evaluation_metrics(data: Images, predictions: Predictions) -> dict[str, float]:
    """Accuracy, calibration error, log loss, macro F1, and of how many images.

    A probability that is recorded as 0 counts as half of the least above it in the log loss.
    """
    actual, (predicted, probabilities) = data.labels, predictions
    given = np.maximum(probabilities[np.arange(len(actual)), actual], 10.0**-DECIMALS / 2)
    values = {
        "accuracy": accuracy_score(actual, predicted),
        "calibration_error": calibration_error(predicted == actual, predictions.confidence),
        "log_loss": -np.log(given).mean(),
        "macro_f1": f1_score(actual, predicted, average="macro"),
    }
    rounded = {name: round(float(value), DECIMALS) for name, value in values.items()}
    return rounded | {"images": len(actual)}


def recall(data: Images, predictions: Predictions) -> Mapping[str, float]:
    """Of each class that has images, the share of them that is recognised, by its name."""
    known = np.unique(data.labels)
    shares = recall_score(data.labels, predictions.labels, average=None, labels=known)
    return {data.class_names[n]: float(share) for n, share in zip(known, shares, strict=True)}


class Bin(NamedTuple):
    """Images that a model was about equally sure of."""

    confidence: float  # mean probability of the predicted class
    right: float  # share of them that the model was right about
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
