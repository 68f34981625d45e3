"""Where the predictions of two models differ, and which of them was right."""

import csv
from collections import Counter
from math import comb
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.console import StageError


class Predictions(NamedTuple):
    """A model's predictions to the evaluation images, in order.

    actual, predicted: class names, str [n]; confidence: float [n], probability of the latter.
    """

    actual: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each image's predicted class is its actual one, bool [n]."""
        return self.predicted == self.actual


class Pair(NamedTuple):
    """Two classes that one model and the other gave to the same images.

    images: how many; right: how often the first model was right, and the second.
    """

    given: tuple[str, str]
    images: int
    right: tuple[int, int]


def read_predictions(path: Path) -> Predictions:
    """Read what write_predictions wrote. Raises StageError when it is not there."""
    if not path.exists():
        raise StageError(f"{path}: not found; make it with: dvc repro")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    actual, predicted = (np.array([r[name] for r in rows]) for name in ("actual", "predicted"))
    return Predictions(actual, predicted, np.array([float(r["confidence"]) for r in rows]))


def common_mistakes(predictions: Predictions, count: int) -> list[tuple[str, str, int]]:
    """The most common mistakes: actual class, predicted class, images."""
    wrong = ~predictions.right
    pairs = Counter(zip(predictions.actual[wrong], predictions.predicted[wrong], strict=True))
    return [(*pair, images) for pair, images in pairs.most_common(count)]


def weakest(predictions: Predictions, count: int) -> list[tuple[str, float]]:
    """The classes that are recognised least, each with its recall."""
    recall = [
        (str(name), float(predictions.right[predictions.actual == name].mean()))
        for name in np.unique(predictions.actual)
    ]
    return sorted(recall, key=itemgetter(1))[:count]


def agreement_counts(first: Predictions, second: Predictions) -> dict[str, int]:
    """How many images both models, the first or the second alone, or neither was right about."""
    a, b = first.right, second.right
    sets = {"both": a & b, "first": a & ~b, "second": b & ~a, "neither": ~a & ~b}
    return {name: int(images.sum()) for name, images in sets.items()}


def chance(first: int, second: int) -> float:
    """How probable so uneven a split is between two models that are equally good, 0 to 1.

    first, second: images that one of them alone was right about. Source: McNemar's exact test,
    Dietterich, Approximate statistical tests, Neural Computation 10(7), 1998.
    """
    images = first + second
    tail = sum(comb(images, n) for n in range(min(first, second) + 1))
    return min(1.0, 2 * tail / 2**images)


def disagreements(first: Predictions, second: Predictions) -> list[Pair]:
    """The pairs of classes that the models differ in, most common first."""
    differ = np.flatnonzero(first.predicted != second.predicted)
    by_pair: dict[tuple[str, str], list[int]] = {}
    for n in differ.tolist():
        by_pair.setdefault((str(first.predicted[n]), str(second.predicted[n])), []).append(n)
    pairs = [
        Pair(given, len(n), (int(first.right[n].sum()), int(second.right[n].sum())))
        for given, n in by_pair.items()
    ]
    return sorted(pairs, key=lambda pair: -pair.images)


def surest_disagreements(first: Predictions, second: Predictions, count: int) -> np.ndarray:
    """Numbers of the images on which models differ, int [≤ count], both being sure first."""
    differ = np.flatnonzero(first.predicted != second.predicted)
    sure = np.minimum(first.confidence, second.confidence)[differ]
    return differ[np.argsort(-sure, kind="stable")][:count]
