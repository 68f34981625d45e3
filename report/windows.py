"""How far a window of images is from those of the evaluation, with thresholds by resampling."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from sklearn.neighbors import NearestNeighbors

from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.model.inputs import read_features
from serving.fashion.packaged import Model
from stages.console import StageError
from stages.data.arrays import map_rows
from stages.data.processed import FEATURES, TRAIN_FEATURES

FALSE_ALARMS = 0.01  # of windows of nothing new, at most, that raise an alarm
MARGIN = 2  # since thresholds are estimates
RESAMPLES = 2000  # windows of the evaluation images, to estimate a threshold from
MIN_IMAGES = 50  # images of a window
NEIGHBOURS = 10_000  # training images, of which the nearest one's distance counts
SEED = 7

CLASSES, CONFIDENCE, DISAGREEMENT, DISTANCE = "classes", "confidence", "disagreement", "distance"
Values = dict[str, np.ndarray]  # of each image, by "classes of fashion-sklearn" and so on


class Measure(NamedTuple):
    """A statistic of a window and its threshold; images: of the window."""

    name: str
    value: float
    threshold: float
    images: int

    @property
    def drifted(self) -> bool:
        """Whether it is above what FALSE_ALARMS of unchanged windows reach."""
        return self.value > self.threshold


def chi_square(labels: np.ndarray, reference: np.ndarray) -> float:
    """Pearson's statistic of the classes' counts, over the images. labels: int [n]."""
    size = int(max(labels.max(), reference.max())) + 1
    expected = np.bincount(reference, minlength=size) + 1.0  # no class is impossible
    expected *= len(labels) / expected.sum()
    observed = np.bincount(labels, minlength=size)
    return float(((observed - expected) ** 2 / expected).sum()) / len(labels)


def ks_statistic(values: np.ndarray, reference: np.ndarray) -> float:
    """Kolmogorov and Smirnov's statistic: between the two distribution functions, 0 to 1.

    Here, as chi_square, since SciPy's take ten times as long, which 2,000 resamples would show.
    """
    both = np.concatenate([values, reference])
    shares = [
        np.searchsorted(np.sort(some), both, "right") / len(some) for some in (values, reference)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def difference(values: np.ndarray, reference: np.ndarray) -> float:
    """Between the means, either way."""
    return float(abs(values.mean() - reference.mean()))


STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    CLASSES: chi_square,
    CONFIDENCE: ks_statistic,
    DISAGREEMENT: difference,
    DISTANCE: ks_statistic,
}


def measures(window: Values, reference: Values, limits: Mapping[str, float]) -> list[Measure]:
    """A measure of each value that the window has. limits: thresholds, by its name."""
    return [
        Measure(name, _statistic(name)(values, reference[name]), limits[name], len(values))
        for name, values in window.items()
    ]


def threshold(name: str, reference: np.ndarray, size: int, count: int) -> float:
    """What a statistic rarely exceeds, in windows of so many evaluation images.

    That is in FALSE_ALARMS / MARGIN / count of them, each compared with the images outside it, as
    images from elsewhere would be. count: of statistics that may each raise the alarm; Bonferroni's
    bound holds for all of them.
    """
    random, statistic = np.random.default_rng(SEED), _statistic(name)
    size = min(size, len(reference) // 2)
    orders = (random.permutation(reference) for _ in range(RESAMPLES))
    values = [statistic(order[:size], order[size:]) for order in orders]
    return float(np.quantile(values, 1 - FALSE_ALARMS / MARGIN / count))


def _statistic(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    return STATISTICS[name.partition(" ")[0]]


class Models:
    """The packaged models, and their values of images. Raises StageError without their files."""

    def __init__(self, models: list[Model]) -> None:
        self.names = [model.name for model in models]
        for model in models:
            if not model.path.exists():
                raise StageError(f"{model.path}: not found; make it with: dvc repro package")
        self._classifiers = [load_classifier(model.path) for model in models]
        self._features = read_features(FEATURES)
        trained = map_rows(TRAIN_FEATURES)
        chosen = np.random.default_rng(SEED).permutation(len(trained))[:NEIGHBOURS]
        self._nearest = NearestNeighbors(n_neighbors=1, algorithm="brute")
        self._nearest.fit(np.ascontiguousarray(trained[np.sort(chosen)]))

    def __call__(self, images: np.ndarray) -> Values:
        """All values of images, uint8 [n, 784]: of each model, of all, and distances.

        Those are to the nearest of NEIGHBOURS training images, in the space of features.
        """
        values: Values = {}
        for name, classifier in zip(self.names, self._classifiers, strict=True):
            outputs = classifier.classify(images)
            values[f"{CLASSES} of {name}"] = outputs[LABELS]
            values[f"{CONFIDENCE} of {name}"] = outputs[PROBABILITIES].max(axis=1)
        labels = np.stack([values[f"{CLASSES} of {name}"] for name in self.names])
        if len(labels) > 1:
            values[DISAGREEMENT] = (labels != labels[0]).any(axis=0).astype(float)
        values[DISTANCE] = self._nearest.kneighbors(self._features(images))[0][:, 0]
        return values
