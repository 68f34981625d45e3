"""What a model sees of an image: pixels, features, or features after a score for each class."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from ..contract import FEATURES_FILE, SCORES_FILE
from .features import FeatureMap
from .scores import ScoreArrays, ScoreMap


def read_features(path: Path) -> FeatureMap:
    """A map from pixels to features, as it was saved."""
    arrays = _read(path)
    return FeatureMap(**{name: arrays[name] for name in arrays if name in FeatureMap._fields})


def read_inputs(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """What makes a model's inputs, float32 [n, k], of uint8 [n, 784] images, by files beside it.

    Features where there is a map to them, after scores where there is one to those, too; otherwise
    the pixels themselves, 0 to 255.
    """
    if not (folder / FEATURES_FILE).exists():
        return lambda images: images.astype(np.float32)
    features, fitted = read_features(folder / FEATURES_FILE), _read_scores(folder)
    if fitted is None:
        return cast(Callable[[np.ndarray], np.ndarray], features)  # which mypy takes for a tuple
    scores = ScoreMap(fitted)

    def scores_and_features(images: np.ndarray) -> np.ndarray:
        found = features(images)
        return np.hstack([scores(found), found])

    return scores_and_features


def _read_scores(folder: Path) -> ScoreArrays | None:
    if (folder / SCORES_FILE).exists():
        return ScoreArrays(**_read(folder / SCORES_FILE))
    # Versions that were packaged before have them with the features, empty for none.
    arrays = _read(folder / FEATURES_FILE)
    if "weights" in arrays and arrays["weights"].size:
        return ScoreArrays(*(arrays[name] for name in ScoreArrays._fields))
    return None


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)
