"""Responses of an image to two layers of filters, which are dictionaries of patches.

Each layer applies its filters to every patch and keeps the largest response of each block of 2 × 2
places. The first layer's patches are of pixels, the second's of the first layer's cells. Fitted by
stages/training/dictionary.py.

Sources: Coates, Lee and Ng, An analysis of single-layer networks in unsupervised feature learning,
AISTATS 2011; Coates and Ng, Selecting receptive fields in deep networks, NIPS 2011.
"""

import math
import threading
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from ..contract import SIDE
from .exact import quantize

if TYPE_CHECKING:
    from .features import FeatureMap

BORDER = 2  # black pixels around an image: clothes touch its edges, where gradients are
PIXEL_SIDE, CELL_SIDE = 5, 2  # of patches of pixels, and of cells
CELL_LIMIT, CELL_PLACES = 4.0, 7  # of the second layer's inputs: largest value, binary places
THRESHOLD = 0.6  # of responses to the second layer, of either sign
GRID = 3  # places a side that are left of an image
TILE = 64  # images at once: fewer cost more calls, more cost more memory traffic
_buffers = threading.local()


def filter_responses(images: np.ndarray, fitted: "FeatureMap") -> np.ndarray:
    """Of uint8 [n, 784] images to both layers; float32 [n, 2b · 9], at least 0.

    Matrix products are exact and other sums are added in one order, so an image has the same
    responses in any batch.
    """
    count = 2 * fitted.regions.shape[1] * GRID**2
    values = np.empty((len(images), count), np.float32)
    for start in range(0, len(images), TILE):
        tile = images[start : start + TILE]
        maps = channels(tile, fitted)
        found = _apply(maps, CELL_SIDE, fitted.regions, fitted.contrast[1], centred=False)
        found -= fitted.region_offset[:, None, None, None]
        beyond = np.stack([_pooled(found, np.maximum), -_pooled(found, np.minimum)])
        beyond -= np.float32(THRESHOLD)
        np.maximum(beyond, 0, out=beyond)
        values[start : start + TILE] = np.sqrt(beyond, out=beyond).reshape(count, len(tile)).T
    return values


def channels(images: np.ndarray, fitted: "FeatureMap") -> np.ndarray:
    """The second layer's inputs for uint8 [n, 784] images: float32 [c, 7, 7, n]."""
    found = cells(images, fitted)
    mixed = fitted.channels.T @ found.reshape(len(found), -1)
    mixed -= fitted.channel_offset[:, None]
    return _bounded(mixed).reshape(-1, *found.shape[1:])


def cells(images: np.ndarray, fitted: "FeatureMap") -> np.ndarray:
    """Responses of uint8 [n, 784] images to the first layer, of either sign: [a, 7, 7, n]."""
    maps = pixels(images)
    found = _apply(maps, PIXEL_SIDE, fitted.patches, fitted.contrast[0], centred=True)
    largest = _pooled(np.abs(found, out=found), np.maximum)
    means = _halved(_halved(largest).swapaxes(1, 2)).swapaxes(1, 2)
    return _bounded(np.sqrt(np.ascontiguousarray(means)))


def pixels(images: np.ndarray) -> np.ndarray:
    """The first layer's inputs for uint8 [n, 784] images: float32 [1, 32, 32, n], 0 to 255."""
    squares = images.reshape(-1, SIDE, SIDE).transpose(1, 2, 0)[None]
    margin = (BORDER, BORDER)
    return np.pad(squares.astype(np.float32), ((0, 0), margin, margin, (0, 0)))


def _bounded(values: np.ndarray) -> np.ndarray:
    np.clip(values, -CELL_LIMIT, CELL_LIMIT, out=values)
    return quantize(values, CELL_PLACES)


def _apply(
    maps: np.ndarray, side: int, weights: np.ndarray, contrast: np.float32, *, centred: bool
) -> np.ndarray:
    """Responses [filters, q, q, n] of the patches of maps [c, s, s, n], with normalized contrast.

    Each is divided by the root of contrast + the patch's mean square, or its variance, if centred.
    """
    depth, size, _, count = maps.shape
    places = size - side + 1
    patches = _buffer("patches", (side, side, depth, places, places, count))
    for row in range(side):
        for column in range(side):
            patches[row, column] = maps[:, row : row + places, column : column + places]
    found = _buffer("found", (weights.shape[1], places, places, count))
    inputs = side**2 * depth
    np.matmul(weights.T, patches.reshape(inputs, -1), out=found.reshape(len(found), -1))
    squares = _window_sums((maps * maps).sum(axis=0), side) / np.float32(inputs)
    if centred:
        squares -= (_window_sums(maps.sum(axis=0), side) / np.float32(inputs)) ** 2
    found *= 1 / np.sqrt(np.maximum(squares, 0) + contrast)
    return found


def _pooled(values: np.ndarray, chosen: np.ufunc) -> np.ndarray:
    """The largest, or smallest, of each 2 × 2 values: [k, q / 2, q / 2, n] of [k, q, q, n]."""
    rows = chosen(values[:, ::2], values[:, 1::2])
    return np.asarray(chosen(rows[:, :, ::2], rows[:, :, 1::2]))


def _halved(values: np.ndarray) -> np.ndarray:
    """Means of four neighbours along axis 1, every second one, with weights 1, 3, 3, 1 of 8.

    Values beyond the ends are 0.
    """
    first, second = values[:, ::2], values[:, 1::2]
    means = first + second
    means *= 3
    means[:, 1:] += second[:, :-1]
    means[:, :-1] += first[:, 1:]
    means *= np.float32(1 / 8)
    return means


def _window_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sums of side × side values, [q, q, n], of [s, s, n]."""
    size = len(values) - side + 1
    rows = reduce(np.add, (values[start : start + size] for start in range(side)))
    return np.asarray(reduce(np.add, (rows[:, start : start + size] for start in range(side))))


def _buffer(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of this thread, float32, overwritten by the next one of that name.

    Allocating memory for each step would take longer than the step.
    """
    size = math.prod(shape)
    held = vars(_buffers).get(name)
    if held is None or held.size < size:
        held = vars(_buffers)[name] = np.empty(size, np.float32)
    return held[:size].reshape(shape)
