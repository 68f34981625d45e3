"""Learn the filters of patches (serving/fashion/model/dictionary.py).

Filters are k-means centres of patches with normalised contrast and decorrelated values (ZCA), as in
Coates, Lee and Ng, An analysis of single-layer networks in unsupervised feature learning, AISTATS
2011.
"""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA

from serving.fashion.contract import PIXEL_MAX
from serving.fashion.model import dictionary
from serving.fashion.model.dictionary import CELL_LIMIT, CELL_PLACES, CELL_SIDE, PIXEL_SIDE
from serving.fashion.model.exact import exact_weights
from serving.fashion.model.features import FeatureMap
from stages.data.arrays import blocks

SEED = 7  # of all that is random in the features but the class scores
IMAGES, PATCHES = 5_000, 100_000  # of the sample, to take patches of; and patches, at most
BATCH = 500  # images at once
CONTRAST = 0.01  # added to a patch's mean square: of pixels as 0 to 1; of cells, times their mean
WHITENING = 0.01  # added to the variances that are made equal; of cells, times their mean
FAINT_PIXELS = 0.02  # patches of a lower standard deviation are left out, of pixels as 0 to 1
FAINT_CELLS = 0.15  # share of patches of cells that is left out, of lowest mean square
CHANNELS = 8  # that the values of a cell are mixed to
PASSES, PATCHES_A_STEP = 15, 4096  # of k-means


def fit_dictionaries(
    images: np.ndarray,
    fitted: FeatureMap,
    filters: list[int],
    variance: np.ndarray,
    advance: Callable[[int], None],
) -> FeatureMap:
    """Add dictionaries to a map, fitted on uint8 [n, 784] images that are not all alike.

    filters: of patches of pixels and of cells, at most; variance: [1], that the responses are
    weighted to have in all, up to rounding; advance: called with 1 after each of the two.
    """
    some = images[:: -(-len(images) // IMAGES)]
    random = np.random.default_rng(SEED)
    patches = _pixel_patches(some, random)
    weights, _, contrast = _filters(patches, filters[0], centred=True)
    advance(1)
    fitted = fitted._replace(
        patches=exact_weights(weights, PIXEL_MAX, 0), contrast=np.array([contrast, 0], np.float32)
    )
    cells = _in_batches(some, lambda batch: dictionary.cells(batch, fitted))
    values = cells.reshape(len(cells), -1).T
    pca = PCA(min(CHANNELS, len(cells)), svd_solver="covariance_eigh").fit(values)
    fitted = fitted._replace(
        channels=exact_weights(pca.components_.T, CELL_LIMIT, CELL_PLACES),
        channel_offset=(pca.components_ @ pca.mean_).astype(np.float32),
    )
    channels = _in_batches(some, lambda batch: dictionary.channels(batch, fitted))
    patches = _cell_patches(channels, random)
    weights, offset, cell_contrast = _filters(patches, filters[1], centred=False)
    advance(1)
    fitted = fitted._replace(
        regions=exact_weights(weights, CELL_LIMIT, CELL_PLACES),
        region_offset=offset.astype(np.float32),
        contrast=np.array([contrast, cell_contrast], np.float32),
    )
    found = dictionary.filter_responses(some, fitted).var(axis=0).sum(keepdims=True)
    weight = np.sqrt(variance / np.maximum(found, np.finfo(np.float32).tiny))
    return fitted._replace(response_weight=weight.astype(np.float32)[0])


def _in_batches(images: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.concatenate([make(images[rows]) for rows in blocks(len(images), BATCH)], axis=-1)


def _pixel_patches(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Patches of uint8 [n, 784] images that are not faint, less their means, [m, 25], 0 to 255."""
    patches = _patches(dictionary.pixels(images), PIXEL_SIDE, 2 * PATCHES, random)
    patches -= patches.mean(axis=1, keepdims=True)
    spread = patches.std(axis=1)
    return patches[spread >= min(FAINT_PIXELS * PIXEL_MAX, spread.max())][:PATCHES]


def _cell_patches(channels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Patches of float32 [c, 7, 7, n] channels without the faintest ones, [m, 4c]."""
    patches = _patches(channels, CELL_SIDE, PATCHES, random)
    squares = (patches**2).mean(axis=1)
    return patches[squares >= np.quantile(squares, FAINT_CELLS)]


def _patches(maps: np.ndarray, side: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Patches of maps [c, s, s, n], at random, [count, side · side · c]."""
    windows = sliding_window_view(maps, (side, side), axis=(1, 2))
    row, column, image = (random.integers(0, size, count) for size in windows.shape[1:4])
    return windows[:, row, column, image].transpose(1, 2, 3, 0).reshape(count, -1)


def _filters(
    patches: np.ndarray, count: int, *, centred: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Centres of patches [m, k], to multiply patches with before these are divided by contrast.

    centred: the patches' means are 0, so the filters' are, too. Returns weights
    [k, filters], the responses' offset [filters], and the contrast that was added.
    """
    squares = (patches.astype(np.float64) ** 2).mean(axis=1, keepdims=True)
    contrast = CONTRAST * (PIXEL_MAX**2 if centred else squares.mean())
    normalised = patches / np.sqrt(squares + contrast)
    mean = np.zeros(normalised.shape[1]) if centred else normalised.mean(axis=0)
    normalised -= mean
    variances, vectors = np.linalg.eigh(normalised.T @ normalised / len(normalised))
    ridge = WHITENING * (1 if centred else variances.mean())
    whitening = (vectors / np.sqrt(np.maximum(variances, 0) + ridge)) @ vectors.T
    white = _normalise(normalised @ whitening).astype(np.float32)
    kmeans = MiniBatchKMeans(
        min(count, len(white)),
        batch_size=PATCHES_A_STEP,
        n_init=1,
        max_iter=PASSES,
        max_no_improvement=None,
        random_state=SEED,
    )
    weights = whitening @ _normalise(kmeans.fit(white).cluster_centers_).T
    if centred:
        weights -= weights.mean(axis=0)
    return weights, mean @ weights, float(contrast)


def _normalise(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.finfo(np.float32).tiny)
