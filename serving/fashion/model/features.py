"""The features of an image: its descriptors, projected.

The descriptors are histograms of gradients, means of pixels, and responses to dictionaries of
patches (dictionary.py).

One definition for training and serving. A map is fitted once (stages/training/features.py) and
saved as plain arrays; a server applies it to the pixels of a request.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
from threadpoolctl import threadpool_limits

from ..contract import PIXEL_MAX, SIDE
from .dictionary import BORDER, filter_responses
from .exact import FEATURE_PLACES, quantize

# OpenCV releases Python's lock while it computes histograms; its threads gain nothing on images of
# this size.
cv2.setNumThreads(1)
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
ROWS_PER_THREAD = 250  # images a thread takes at once, which bounds the memory: that × landmarks
# of the class scores × 12 bytes
CLIP, BLOCK_CELLS = 0.2, 2  # Dalal and Triggs: L2-Hys normalisation, blocks of 2 × 2 cells
PATCH = 2  # pixels a side, whose means are features as well
# Binary places that values are rounded to (exact.py). The norm of descriptors is below 2^6, so sums
# of their products with directions have 6 + 8 + 10 = 24 bits; that of features is below 2^2, so
# squared distances have 6 + 2 · 9 = 24 bits.
DESCRIPTOR_PLACES, DIRECTION_PLACES = 8, 10
EMPTY = np.empty((0, 0), np.float32)


class FeatureMap(NamedTuple):
    """A fitted map from pixels to features, plain arrays only.

    cells: int [s], sides in pixels of the histograms' cells, none for pixels alone; bins: int,
    directions of a histogram; pixel_weight: of a pixel as 0 to 1; projection: float32 [d, k], of
    the descriptors, [0, 0] for none; offset: float32 [k], subtracted then; scale: float32 [1].

    Of dictionary.py, [0, 0] for none: patches: float32 [25, a], directions of patches of pixels,
    each of sum 0; channels: float32 [a, c], mixes what a cell has of them; channel_offset: float32
    [c], subtracted then; regions: float32 [4c, b], directions of patches of cells; region_offset:
    float32 [b], subtracted from responses; contrast: float32 [2], added to a patch's mean square,
    of either layer; response_weight: float32 [], of responses.
    """

    cells: np.ndarray
    bins: np.ndarray
    pixel_weight: np.ndarray
    projection: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    patches: np.ndarray = EMPTY
    channels: np.ndarray = EMPTY
    channel_offset: np.ndarray = EMPTY
    regions: np.ndarray = EMPTY
    region_offset: np.ndarray = EMPTY
    contrast: np.ndarray = EMPTY
    response_weight: np.ndarray = EMPTY

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The features of uint8 [n, 784] images; float32 [n, k], finite.

        All sums are exact, so an image has the same features in any batch.
        """
        return standardize(project(describe(images, self), self), self)


def project(descriptors: np.ndarray, features: FeatureMap) -> np.ndarray:
    """Float32 [n, k], of descriptors, float32 [n, d], along each direction of the projection."""
    return descriptors @ features.projection if features.projection.size else descriptors


def standardize(values: np.ndarray, features: FeatureMap) -> np.ndarray:
    """Components, float32 [n, k], of such values [n, k]."""
    return quantize((values - features.offset) * features.scale, FEATURE_PLACES)


def describe(images: np.ndarray, features: FeatureMap) -> np.ndarray:
    """Histograms of gradients at each cell size, means of pixels, responses; or pixels alone.

    images: uint8 [n, 784]; returns float32 [n, d], every value 0 to 1, in steps of 2^-8. Each cell
    holds a histogram of `bins` directions over the full circle. Square roots are taken of the
    pixels before and of the histograms after, the latter so that euclidean distances become
    Hellinger's.

    Sources: Dalal and Triggs, Histograms of oriented gradients, CVPR 2005; Arandjelović and
    Zisserman, Three things everyone should know to improve object retrieval, CVPR 2012.
    """
    if len(images) <= ROWS_PER_THREAD:
        return _describe(images, features)
    length = _describe(images[:1], features).shape[1]
    found = np.empty((len(images), length), np.float32)  # joining blocks would take twice as much

    def fill(start: int) -> None:
        rows = slice(start, start + ROWS_PER_THREAD)
        found[rows] = _describe(images[rows], features)

    with threadpool_limits(1), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill, range(0, len(images), ROWS_PER_THREAD)))
    return found


def _describe(images: np.ndarray, features: FeatureMap) -> np.ndarray:
    descriptors = _histograms_and_means(images, features)
    if not features.regions.size:
        return descriptors
    found = filter_responses(images, features)
    found *= features.response_weight
    np.minimum(found, 1, out=found)
    return np.hstack([descriptors, quantize(found, DESCRIPTOR_PLACES)])


def _histograms_and_means(images: np.ndarray, features: FeatureMap) -> np.ndarray:
    weight = np.float32(features.pixel_weight / PIXEL_MAX)
    if not features.cells.size:
        return quantize(images * weight, DESCRIPTOR_PLACES)
    squares = images.reshape(len(images), SIDE, SIDE)
    side = SIDE + 2 * BORDER
    # Windows of one tall image, since OpenCV sets up its tables once a call. The black borders
    # separate the images, so each has the histograms that it has alone.
    tall = np.pad(squares, ((0, 0), (BORDER, BORDER), (BORDER, BORDER))).reshape(-1, side)
    hogs = [_histograms(cell, int(features.bins)) for cell in features.cells.tolist()]
    ends = np.cumsum([0, *(hog.getDescriptorSize() for hog in hogs)]).tolist()
    descriptors = np.empty((len(images), ends[-1] + (SIDE // PATCH) ** 2), np.float32)
    if len(images):
        for hog, start, end in zip(hogs, ends, ends[1:], strict=False):
            values = np.asarray(hog.compute(tall, winStride=(side, side)))
            np.sqrt(values.reshape(len(images), -1), out=descriptors[:, start:end])
    sums = np.zeros((len(images), SIDE // PATCH, SIDE // PATCH), np.float32)
    for row, column in product(range(PATCH), repeat=2):
        sums += squares[:, row::PATCH, column::PATCH]
    descriptors[:, ends[-1] :] = sums.reshape(-1, (SIDE // PATCH) ** 2) * (weight / PATCH**2)
    return quantize(descriptors, DESCRIPTOR_PLACES)


@cache
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
