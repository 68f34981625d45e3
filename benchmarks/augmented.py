"""Fashion-MNIST as it is published, and copies of its images: shifted and mirrored."""

from collections.abc import Iterator
from itertools import product

import numpy as np

from serving.fashion.contract import CLASS_NAMES, PIXELS, SIDE
from stages.data.idx import RAW, read_idx
from stages.data.processed import Images

SHIFT = 2  # pixels at most, in each direction
BLOCK = 10_000  # images at once
_PLACES = range(-SHIFT, SHIFT + 1)
# Down, right, mirrored; the least shifted first, as they are likest to what there is.
CHANGES = sorted(
    product(_PLACES, _PLACES, (False, True)), key=lambda c: (c[0] ** 2 + c[1] ** 2, c[2])
)
COPIES = len(CHANGES)  # at most: no two are alike


def published(files: tuple[str, str]) -> Images:
    """The images of TRAIN_FILES or TEST_FILES of stages.data.idx, once these are downloaded."""
    images, labels = (RAW / file for file in files)
    return read_idx(images, labels, CLASS_NAMES["fashion-mnist"])


def augmented(
    images: np.ndarray, labels: np.ndarray, copies: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of the images, uint8 [≤ 10,000, 784], and their labels, copy after copy.

    images: uint8 [n, 784]; copies: 1 to 50. Copy 0 is the images as they are; each other one is
    all of them, shifted and perhaps mirrored alike, and unlike every other copy.
    """
    if not 1 <= copies <= COPIES:
        raise ValueError(f"{copies} copies; expected 1 to {COPIES}")
    for change in CHANGES[:copies]:
        for start in range(0, len(images), BLOCK):
            block = slice(start, start + BLOCK)
            yield changed(images[block], *change), labels[block]


def changed(images: np.ndarray, down: int, right: int, mirrored: bool) -> np.ndarray:
    """Images, uint8 [n, 784], mirrored left to right, then shifted; what comes in is black."""
    pictures = images.reshape(-1, SIDE, SIDE)[:, :, :: -1 if mirrored else 1]
    around = np.pad(pictures, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    top, left = SHIFT - down, SHIFT - right
    return around[:, top : top + SIDE, left : left + SIDE].reshape(-1, PIXELS)
