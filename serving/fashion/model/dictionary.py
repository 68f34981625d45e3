"""What an image has of two dictionaries of patches, the second above the first; no label is used.

Each layer compares every patch with its directions, keeps how far a response goes beyond a
threshold on either side, and averages that around the points of a grid. The first layer's patches
are of pixels, the second's of the first one's cells. Directions: stages/training/dictionary.py.

Sources: Coates, Lee and Ng, An analysis of single-layer networks in unsupervised feature learning,
AISTATS 2011; Coates and Ng, Selecting receptive fields in deep networks, NIPS 2011.
"""

import math
import threading
from functools import cache, reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..contract import SIDE
from .exact import quantize

if TYPE_CHECKING:
    from .features import FeatureArrays

BORDER = 2  # black pixels put around an image
CELL_LIMIT, CELL_PLACES = 4.0, 7  # of what the second layer sees
RESPONSE_LIMIT, RESPONSE_PLACES = 16.0, 8  # beyond a threshold, before means are taken
TILE = 32  # images at once: fewer cost more calls, more cost more memory traffic


class Layer(NamedTuple):
    """A patch's side, the threshold of its responses, and the means that are taken of these.

    First of block × block responses, then by weights (taps) along each axis, two blocks apart, with
    one block of nothing around.
    """

    side: int
    threshold: float
    block: int
    taps: tuple[float, ...]


PIXEL_PATCHES = Layer(side=5, threshold=0.25, block=2, taps=(1 / 8, 3 / 8, 3 / 8, 1 / 8))
CELL_PATCHES = Layer(side=3, threshold=0.6, block=1, taps=(1 / 4, 1 / 2, 1 / 4))
GRID = 3  # cells a side, in the end
_buffers = threading.local()


def responses(images: np.ndarray, fitted: "FeatureArrays") -> np.ndarray:
    """Of uint8 [n, 784] images to both layers; float32 [n, 2b · 9], at least 0."""
    count = fitted.regions.shape[1] * 2 * GRID**2
    values = np.empty((len(images), count), np.float32)
    for start in range(0, len(images), TILE):
        tile = images[start : start + TILE]
        of_cells = _layer(
            channels(tile, fitted),
            CELL_PATCHES,
            fitted.regions,
            fitted.contrast[1],
            fitted.region_offset,
        )
        values[start : start + TILE] = of_cells.transpose(1, 0, 2, 3).reshape(len(tile), count)
    return values


def channels(images: np.ndarray, fitted: "FeatureArrays") -> np.ndarray:
    """What the second layer sees of uint8 [n, 784] images: float32 [c, n, 7, 7]."""
    found = cells(images, fitted)
    mixed = fitted.channels.T @ found.reshape(len(found), -1)
    mixed -= fitted.channel_offset[:, None]
    return _bounded(mixed).reshape(-1, *found.shape[1:])


def cells(images: np.ndarray, fitted: "FeatureArrays") -> np.ndarray:
    """Responses of uint8 [n, 784] images to the first layer: float32 [2a, n, 7, 7]."""
    return _bounded(_layer(pixels(images), PIXEL_PATCHES, fitted.patches, fitted.contrast[0]))


def pixels(images: np.ndarray) -> np.ndarray:
    """What the first layer sees of uint8 [n, 784] images: float32 [1, n, 32, 32], 0 to 255."""
    squares = images.reshape(1, -1, SIDE, SIDE)
    margin = (BORDER, BORDER)
    return np.pad(squares, ((0, 0), (0, 0), margin, margin)).astype(np.float32)


def _bounded(values: np.ndarray) -> np.ndarray:
    np.clip(values, -CELL_LIMIT, CELL_LIMIT, out=values)
    return quantize(values, CELL_PLACES)


def _layer(
    maps: np.ndarray,
    layer: Layer,
    weights: np.ndarray,
    contrast: np.float32,
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """Square roots of mean responses, float32 [2 · directions, n, g, g], of maps [c, n, s, s].

    Without an offset, a patch's mean is subtracted from it. Matrix products are exact, and all
    other sums are added in one order: an image has the same responses in any batch.
    """
    depth, count, size, _ = maps.shape
    side = layer.side
    positions, inputs = size - side + 1, depth * side**2
    patches = _buffer("patches", (side, side, depth, count, positions, positions))
    for row in range(side):
        for column in range(side):
            patches[row, column] = maps[:, :, row : row + positions, column : column + positions]
    found = _buffer("found", (weights.shape[1], count, positions, positions))
    np.matmul(weights.T, patches.reshape(inputs, -1), out=found.reshape(len(found), -1))
    found *= 1 / _strength(maps, side, contrast, centred=offset is None)
    if offset is not None:
        found -= offset[:, None, None, None]
    blocks = positions // layer.block
    beyond = np.empty((2, len(found), count, blocks, blocks), np.float32)
    # The mean of what goes beyond a threshold is that of what is raised to it, less the threshold.
    threshold = np.float32(layer.threshold)
    np.subtract(_block_means(found, np.maximum, threshold, layer.block), threshold, out=beyond[0])
    np.subtract(-threshold, _block_means(found, np.minimum, -threshold, layer.block), out=beyond[1])
    np.clip(beyond, 0, RESPONSE_LIMIT, out=beyond)
    pooling = _pooling(blocks, layer.taps)
    means = quantize(beyond, RESPONSE_PLACES).reshape(-1, blocks**2) @ pooling
    side = round(pooling.shape[1] ** 0.5)
    return np.sqrt(means, out=means).reshape(-1, count, side, side)


def _block_means(
    values: np.ndarray, raised: np.ufunc, threshold: np.float32, block: int
) -> np.ndarray:
    """Means [k, n, s / block, s / block] of values [k, n, s, s] that are raised to a threshold."""
    k, n, size, _ = values.shape
    rows, more = _buffer("rows", (2, k, n, size // block, size))
    raised(values[:, :, ::block], threshold, out=rows)
    for start in range(1, block):
        rows += raised(values[:, :, start::block], threshold, out=more)
    means = rows[..., ::block].copy()
    for start in range(1, block):
        means += rows[..., start::block]
    means *= np.float32(1 / block**2)
    return means


@cache
def _pooling(blocks: int, taps: tuple[float, ...]) -> np.ndarray:
    """Weights [blocks², cells²] of means at the points of a grid, each two blocks from the next."""
    cells = (blocks + 2 - len(taps)) // 2 + 1
    along = np.zeros((blocks + 2, cells), np.float32)
    for cell in range(cells):
        along[2 * cell : 2 * cell + len(taps), cell] = taps
    return np.kron(along[1:-1], along[1:-1])


def _buffer(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of this thread, float32, whose content lasts until the next one of that name.

    Fresh memory for each step would take longer than the step.
    """
    size = math.prod(shape)
    held = vars(_buffers).get(name)
    if held is None or held.size < size:
        held = vars(_buffers)[name] = np.empty(size, np.float32)
    return held[:size].reshape(shape)


def _strength(maps: np.ndarray, side: int, contrast: np.float32, *, centred: bool) -> np.ndarray:
    """Root of each patch's mean square, or of its variance, and the contrast: [n, q, q]."""
    inputs = np.float32(len(maps) * side**2)
    squares = _window_sums((maps * maps).sum(axis=0), side) / inputs
    if centred:
        squares -= (_window_sums(maps.sum(axis=0), side) / inputs) ** 2
    return np.sqrt(np.maximum(squares, 0) + contrast)


def _window_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sums of side × side values, [n, q, q], of [n, s, s]."""
    size = values.shape[-1] - side + 1
    rows = reduce(np.add, (values[:, start : start + size] for start in range(side)))
    return np.asarray(reduce(np.add, (rows[:, :, start : start + size] for start in range(side))))
