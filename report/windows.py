"""How far a window of images is from those of the evaluation, with thresholds of SciPy."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.model.inputs import read_features
from serving.fashion.packaged import Model
from stages.data.arrays import map_rows
from stages.data.processed import FEATURES, TRAIN_FEATURES

FALSE_ALARMS = 0.01  # of windows of nothing new, at most, that raise an alarm
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


# From the values of a window, [n], those of the evaluation, [m], and a probability: the statistic,
# and the threshold that it exceeds with this probability if both have the same distribution.
Statistic = Callable[[np.ndarray, np.ndarray, float], tuple[float, float]]


def chi_square(labels: np.ndarray, reference: np.ndarray, chance: float) -> tuple[float, float]:
    """Pearson's statistic of the classes' counts, over the images. labels: int [n]."""
    size = int(max(labels.max(), reference.max())) + 1
    expected = np.bincount(reference, minlength=size) + 1.0  # no class is impossible
    expected *= len(labels) / expected.sum()
    observed = np.bincount(labels, minlength=size)
    value = stats.chisquare(observed, expected).statistic / len(labels)
    return value, stats.chi2.isf(chance, size - 1) * _variance(labels, reference)


def ks_statistic(values: np.ndarray, reference: np.ndarray, chance: float) -> tuple[float, float]:
    """Kolmogorov and Smirnov's statistic: between the two distribution functions, 0 to 1."""
    value = stats.ks_2samp(values, reference, method="asymp").statistic
    return value, stats.kstwobign.isf(chance) * np.sqrt(_variance(values, reference))


def difference(values: np.ndarray, reference: np.ndarray, chance: float) -> tuple[float, float]:
    """Between the shares, either way, of values that are 0 or 1."""
    share, size = reference.mean(), int(1 / _variance(values, reference))
    return abs(values.mean() - share), stats.binom.isf(chance / 2, size, share) / size - share


def _variance(values: np.ndarray, reference: np.ndarray) -> float:
    """Of the difference of the means of so many values of variance 1."""
    return 1 / len(values) + 1 / len(reference)


STATISTICS: dict[str, Statistic] = {
    CLASSES: chi_square,
    CONFIDENCE: ks_statistic,
    DISAGREEMENT: difference,
    DISTANCE: ks_statistic,
}


def measures(window: Values, reference: Values) -> list[Measure]:
    """A measure of each value that the window has.

    Each may raise a false alarm in its part of FALSE_ALARMS; Bonferroni's bound holds for all.
    """
    chance, found = FALSE_ALARMS / len(window), []
    for name, values in window.items():
        statistic = STATISTICS[name.partition(" ")[0]]
        value, threshold = statistic(values, reference[name], chance)
        found.append(Measure(name, float(value), float(threshold), len(values)))
    return found


def model_values(models: Sequence[Model], images: np.ndarray) -> Values:
    """All values of images, uint8 [n, 784]: of each packaged model, of all, and distances.

    Those are to the nearest of NEIGHBOURS training images, in the space of features.
    """
    values: Values = {}
    for model in models:
        outputs = load_classifier(model.path).classify(images)
        values[f"{CLASSES} of {model.name}"] = outputs[LABELS]
        values[f"{CONFIDENCE} of {model.name}"] = outputs[PROBABILITIES].max(axis=1)
    labels = np.stack([values[f"{CLASSES} of {model.name}"] for model in models])
    if len(labels) > 1:
        values[DISAGREEMENT] = (labels != labels[0]).any(axis=0).astype(float)
    trained = map_rows(TRAIN_FEATURES)
    chosen = np.random.default_rng(SEED).permutation(len(trained))[:NEIGHBOURS]
    nearest = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(trained[np.sort(chosen)])
    values[DISTANCE] = nearest.kneighbors(read_features(FEATURES)(images))[0][:, 0]
    return values
