"""The inputs of a model: pixels, features, or a score for each class and features."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..contract import FEATURES_FILE, SCORES_FILE
from .features import FeatureMap
from .scores import ScoreArrays, ScoreMap


def read_features(path: Path) -> FeatureMap:
    """A map from pixels to features, as it was saved."""
    arrays = _read(path)
    return FeatureMap(**{name: arrays[name] for name in arrays if name in FeatureMap._fields})


def read_inputs(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The function from uint8 [n, 784] images to a model's inputs, float32 [n, k].

    folder: of the model. Features if it has a map to them, after class scores if it has a map to
    these too; otherwise the pixels, 0 to 255.
    """
    if not (folder / FEATURES_FILE).exists():
        return lambda images: images.astype(np.float32)
    features, fitted = read_features(folder / FEATURES_FILE), _read_scores(folder)
    scores = ScoreMap(fitted) if fitted else None

    def inputs(images: np.ndarray) -> np.ndarray:
        found = features(images)
        return np.hstack([scores(found), found]) if scores else found

    return inputs


def _read_scores(folder: Path) -> ScoreArrays | None:
    if (folder / SCORES_FILE).exists():
        return ScoreArrays(**_read(folder / SCORES_FILE))
    # Versions packaged before have them in the file of the features, empty for none.
    arrays = _read(folder / FEATURES_FILE)
    if "weights" in arrays and arrays["weights"].size:
        return ScoreArrays(*(arrays[name] for name in ScoreArrays._fields))
    return None


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)
