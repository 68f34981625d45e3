"""Metrics of a model's predictions."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from serving.client import Outputs
from serving.fashion.contract import LABELS, PROBABILITIES
from stages.data.processed import Images

DECIMALS = 6  # of all metrics and plots, which hides how sums are rounded on different machines
BINS = 15  # of equal width, as in the paper that calibration_error names


def evaluation_metrics(data: Images, outputs: Outputs) -> dict[str, Any]:
    """Accuracy, macro F1, recall by class, log loss, calibration error, top-2 accuracy, rows."""
    actual, predicted, probabilities = data.labels, outputs[LABELS], outputs[PROBABILITIES]
    known = np.unique(actual)
    every = np.arange(len(data.class_names))
    recall = recall_score(actual, predicted, average=None, labels=known)
    top_2 = np.argsort(probabilities, axis=1, kind="stable")[:, -2:]
    values = {
        "accuracy": accuracy_score(actual, predicted),
        "macro_f1": f1_score(actual, predicted, average="macro"),
        "top_2_accuracy": (top_2 == actual[:, None]).any(axis=1).mean(),
        "log_loss": log_loss(actual, probabilities, labels=every),
        "calibration_error": calibration_error(predicted == actual, probabilities.max(axis=1)),
    }
    return {
        **{name: round(float(value), DECIMALS) for name, value in values.items()},
        "recall": {
            data.class_names[label]: round(float(value), DECIMALS)
            for label, value in zip(known, recall, strict=True)
        },
        "rows": len(predicted),
    }


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
