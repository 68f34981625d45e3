"""What `preprocess` makes of the data set: its files, and how they are read."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from serving.fashion.contract import FEATURES_FILE
from stages.console import StageError

PROCESSED = Path("data/processed")
TRAIN_IMAGES, TRAIN_LABELS = PROCESSED / "train_images.npy", PROCESSED / "train_labels.npy"
FEATURES, TRAIN_FEATURES = PROCESSED / FEATURES_FILE, PROCESSED / "train_features.npy"
TEST = PROCESSED / "test.npz"
BLOCK = 2500  # images that are in memory at once, where not all of them need be


class Images(NamedTuple):
    """Labelled images. images: uint8 [n, 784]; labels: uint8 [n]; class_names: by label."""

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def read_npz(path: Path) -> Images:
    """Read what was written as npz. Raises StageError when it is not there."""
    try:
        with np.load(path) as content:
            names = tuple(content["class_names"].tolist())
            return Images(content["images"], content["labels"], names)
    except FileNotFoundError:
        raise StageError(f"{path}: not found; make it with: dvc repro preprocess") from None
