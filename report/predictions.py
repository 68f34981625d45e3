"""What `evaluate` recorded of each image, and the mistakes that it shows."""

import csv
from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.console import StageError


class Predictions(NamedTuple):
    """A model's predictions for the evaluation images, in order.

    actual, predicted: class names, str [n]; confidence: float [n], probability of the latter.
    """

    actual: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether each image's predicted class is its actual one, bool [n]."""
        return self.predicted == self.actual


def read_predictions(path: Path) -> Predictions:
    """Read what `evaluate` wrote. Raises StageError when it is not there."""
    if not path.exists():
        raise StageError(f"{path}: not found; make it with: dvc repro")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    actual, predicted = (np.array([r[name] for r in rows]) for name in ("actual", "predicted"))
    return Predictions(actual, predicted, np.array([float(r["confidence"]) for r in rows]))


def common_mistakes(predictions: Predictions, count: int) -> list[tuple[str, str, int]]:
    """The most common mistakes: actual class, predicted class, images."""
    wrong = ~predictions.correct
    pairs = Counter(zip(predictions.actual[wrong], predictions.predicted[wrong], strict=True))
    return [(*pair, images) for pair, images in pairs.most_common(count)]


def weakest(predictions: Predictions, count: int) -> list[tuple[str, float]]:
    """The classes that are recognised least, each with its recall."""
    recall = [
        (str(name), float(predictions.correct[predictions.actual == name].mean()))
        for name in np.unique(predictions.actual)
    ]
    return sorted(recall, key=itemgetter(1))[:count]
