"""What the models see of an image: a score for each class, and a projection of its descriptors.

The descriptors are histograms of gradients and means of pixels; the scores are a kernel ridge
regression of the classes on landmarks, which are training images.

One definition for training and serving. A map is fitted once (stages/preprocess.py) and saved as
plain arrays; a server applies it to the pixels that a request brings.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from .contract import PIXEL_MAX, PIXELS, SIDE
from .kernel import Rbf

# OpenCV lets go of Python's lock while it takes histograms; its own threads gain nothing on images
# this small.
cv2.setNumThreads(1)
THREADS = os.cpu_count() or 1
CHUNK = 250  # images a thread describes at once
ROWS = 1000  # of images at once, which bounds the memory: ROWS × landmarks × 8 bytes
CLIP, BLOCK_CELLS = 0.2, 2  # Dalal and Triggs: L2-Hys normalisation, blocks of 2 × 2 cells
BORDER = 2  # black pixels put around an image: clothes touch its edges, and there begin gradients
PATCH = 2  # pixels a side, of which the mean goes beside the histograms


class PixelError(ValueError):
    """Pixels that no image has; the message says what was expected and what came."""


class Features(NamedTuple):
    """A fitted map from pixels to features, plain arrays only.

    cells: int [s], sides in pixels of the histograms' cells, none for pixels alone; bins: int,
    directions of a histogram; pixel_weight: of a pixel as 0 to 1; projection: float32 [d, k], of
    the descriptors, [0, 0] for none; offset: float32 [k], subtracted then; scale: float32 [1];
    landmarks: float32 [m, k], m training images so projected; gamma: float32 [], kernel width;
    weights: float32 [m, classes], of the scores, [0, 0] for none.
    """

    cells: np.ndarray
    bins: np.ndarray
    pixel_weight: np.ndarray
    projection: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    landmarks: np.ndarray
    gamma: np.ndarray
    weights: np.ndarray


def read_features(path: Path) -> Features:
    """Read what np.savez wrote of a Features."""
    with np.load(path, allow_pickle=False) as content:
        return Features(**content)


class FeatureMap:
    """A fitted map at work.

    It computes in float64 and rounds to float32 at the end, so that an image has the same features
    in whatever batch it comes: a tree may turn on the last digit.
    """

    def __init__(self, fitted: Features) -> None:
        exact = (fitted.projection, fitted.offset, fitted.scale, fitted.weights)
        projection, offset, scale, self._weights = (part.astype(np.float64) for part in exact)
        self.fitted = fitted._replace(projection=projection, offset=offset, scale=scale)
        self._kernel = Rbf(fitted.landmarks, float(fitted.gamma), np.float64)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The features of images: scores, then components; float32 [n, classes + k], finite.

        images: any numbers [n, 784], 0 to 255, rounded to whole ones. Raises PixelError.
        """
        whole = checked(images)
        starts = range(0, max(len(whole), 1), ROWS)
        return np.concatenate([self._features(whole[start : start + ROWS]) for start in starts])

    def _features(self, images: np.ndarray) -> np.ndarray:
        components = project(describe(images, self.fitted), self.fitted)
        if not self._weights.size:
            return components.astype(np.float32)
        scores = self._kernel(components) @ self._weights
        return np.hstack([scores, components]).astype(np.float32)


def project(descriptors: np.ndarray, features: Features) -> np.ndarray:
    """Components [n, k] of descriptors, float32 [n, d]; [n, d] without projection."""
    values = descriptors @ features.projection if features.projection.size else descriptors
    return (values - features.offset) * features.scale


def checked(images: np.ndarray) -> np.ndarray:
    """Images, any numbers [n, 784], 0 to 255, rounded (halves to even) to uint8 [n, 784].

    Raises PixelError for another shape, for what is no number, NaN, infinity, or out of range.
    """
    images = np.asarray(images)
    if images.shape[1:] != (PIXELS,):
        shape = ", ".join(map(str, images.shape))
        raise PixelError(f"expected images of shape [n, {PIXELS}], got [{shape}]")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind not in "iuf":
        raise PixelError(f"expected pixel values as numbers, got {images.dtype}")
    wrong = ~((images >= 0) & (images <= PIXEL_MAX))  # which NaN is, too
    if wrong.any():
        row, pixel = np.argwhere(wrong)[0]
        raise PixelError(
            f"expected pixel values from 0 to {PIXEL_MAX}, "
            f"got {images[row, pixel]} at image {row}, pixel {pixel}"
        )
    return np.ascontiguousarray(np.rint(images), dtype=np.uint8)


def describe(images: np.ndarray, features: Features) -> np.ndarray:
    """Histograms of gradients at each cell size, then 14 × 14 means of pixels; or pixels alone.

    images: uint8 [n, 784]; returns float32 [n, d], every value ≥ 0. Each cell holds a histogram of
    `bins` directions over the full circle. Square roots are taken of the pixels before and of the
    histograms after, the latter so that euclidean distances become Hellinger's.

    Sources: Dalal and Triggs, Histograms of oriented gradients, CVPR 2005; Arandjelović and
    Zisserman, Three things everyone should know to improve object retrieval, CVPR 2012.
    """
    if len(images) <= CHUNK:
        return _describe(images, features)
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        return np.concatenate(list(pool.map(partial(_describe, features=features), chunks)))


def _describe(images: np.ndarray, features: Features) -> np.ndarray:
    weight = np.float32(features.pixel_weight / PIXEL_MAX)
    if not features.cells.size:
        return images * weight
    squares = images.reshape(len(images), SIDE, SIDE)
    side = SIDE + 2 * BORDER
    # One above the other, as windows of one tall image: OpenCV sets up its tables once a call. The
    # black borders keep the images apart, so each has the histograms that it has alone.
    tall = np.pad(squares, ((0, 0), (BORDER, BORDER), (BORDER, BORDER))).reshape(-1, side)
    parts = []
    for cell in features.cells.tolist():
        hog = _histograms(cell, int(features.bins))
        values = hog.compute(tall, winStride=(side, side)) if len(tall) else np.empty(0, np.float32)
        parts.append(np.sqrt(values).reshape(len(images), hog.getDescriptorSize()))
    patches = squares.reshape(len(images), SIDE // PATCH, PATCH, SIDE // PATCH, PATCH)
    means = patches.mean(axis=(2, 4), dtype=np.float32).reshape(len(images), (SIDE // PATCH) ** 2)
    return np.hstack([*parts, means * weight])


def _histograms(cell: int, bins: int) -> cv2.HOGDescriptor:
    side, block = SIDE + 2 * BORDER, BLOCK_CELLS * cell
    return cv2.HOGDescriptor(
        _winSize=(side, side),
        _blockSize=(block, block),
        _blockStride=(cell, cell),
        _cellSize=(cell, cell),
        _nbins=bins,
        _L2HysThreshold=CLIP,
        _gammaCorrection=True,
        _signedGradient=True,
    )
