"""Fit the map from pixels to features (serving/fashion/model/features.py), in bounded memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from serving.fashion.model import features as maps
from serving.fashion.model.exact import quantize
from serving.fashion.model.features import DIRECTION_PLACES, EMPTY, FeatureMap
from stages import params as sections
from stages.console import StageError, progress
from stages.data.arrays import blocks, write_rows
from stages.data.processed import BLOCK
from stages.training.dictionary import SEED, fit_dictionaries

SAMPLE = 20_000  # images at most, evenly spread, to fit directions, offset and scale on
ITERATIONS = 2  # of the randomised decomposition


def fit_features(images: np.ndarray, params: sections.FeatureConfig, target: Path) -> FeatureMap:
    """Fit the map as fit_map does; write the images' features to a .npy file, float32 [n, k]."""
    fitted = fit_map(images, params)
    write_rows(target, len(images), features_of(images, fitted))
    return fitted


def fit_map(images: np.ndarray, params: sections.FeatureConfig) -> FeatureMap:
    """Fit a map on a sample of uint8 [n, 784] images.

    Components are principal ones of the descriptors, by falling variance, scaled such that their
    variances add up to 1; where params.components is null, the descriptors so scaled. Raises
    StageError when the images are all alike.
    """
    hog = params.kind != "pixels"
    fitted = FeatureMap(
        cells=np.array(params.cells if hog else [], np.int64),
        bins=np.array(params.bins),
        pixel_weight=np.array(params.pixel_weight if hog else 1.0),
        projection=EMPTY,
        offset=np.zeros(1, np.float32),
        scale=np.ones(1, np.float32),
    )
    sample = images[np.arange(0, len(images), -(-len(images) // SAMPLE))]
    descriptors = maps.describe(sample, fitted)
    variance = _variance(descriptors)
    if not variance:
        raise StageError(f"the {len(images):,} training images are all alike; nothing to learn")
    steps = 3 if params.kind == "patches" else 1
    with progress("fitting the map to features", steps, "steps") as advance:
        if params.kind == "patches":
            fitted = fit_dictionaries(sample, fitted, params.directions, variance, advance)
            descriptors = maps.describe(sample, fitted)
        if hog and params.components:
            fitted = fitted._replace(projection=_principal(descriptors, params.components))
        advance(1)
    values = maps.project(descriptors, fitted)
    return fitted._replace(offset=values.mean(axis=0), scale=1 / np.sqrt(_variance(values)))


def features_of(images: np.ndarray, fitted: FeatureMap) -> Iterator[np.ndarray]:
    """The features of uint8 [n, 784] images, float32 [up to BLOCK, k] at a time."""
    with progress("describing images", len(images), "images") as advance:
        for rows in blocks(len(images), BLOCK):
            yield fitted(images[rows])
            advance(rows.stop - rows.start)


def _principal(descriptors: np.ndarray, count: int) -> np.ndarray:
    """Directions of most variance of float32 [n, d], the first first; float32 [d, ≤ count]."""
    count = min(count, *descriptors.shape)
    pca = PCA(count, svd_solver="randomized", iterated_power=ITERATIONS, random_state=SEED)
    directions = pca.fit(descriptors).components_.T
    return quantize(np.ascontiguousarray(directions, np.float32), DIRECTION_PLACES)


def _variance(values: np.ndarray) -> np.ndarray:
    """Of all columns together, [1]."""
    return values.var(axis=0).sum(keepdims=True)
