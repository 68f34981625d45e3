"""Features are functions of the pixels alone.  Run: pytest tests/test_features.py"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scratch import Digits, fit_features
from sklearn.decomposition import PCA

from serving.fashion.contract import PIXELS
from serving.fashion.model.dictionary import TILE
from serving.fashion.model.features import (
    FEATURE_PLACES,
    ROWS_PER_THREAD,
    FeatureMap,
    describe,
    project,
)
from serving.fashion.model.pixels import validate_pixels
from stages.console import StageError
from stages.params import Params

images_of = arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(PIXELS)))


def changed(params: Params, **features: object) -> Params:
    """The parameters with other features."""
    return params.model_copy(update={"features": params.features.model_copy(update=features)})


@pytest.fixture(scope="module", params=["patches", "hog", "pixels", "all descriptors"])
def features_of(request: pytest.FixtureRequest, digits: Digits, params: Params) -> FeatureMap:
    section = {"kind": "patches", "cells": [8, 16], "components": 40}
    if request.param in ("hog", "pixels"):
        section["kind"] = request.param
    if request.param == "all descriptors":
        section["components"] = None
    return fit_features(digits[0].images[:300], changed(params, **section))[0]


def test_the_components_of_the_training_images_are_those_of_the_map_and_vary_by_1_in_all(
    digits: Digits, params: Params
):
    images = digits[0].images[: ROWS_PER_THREAD + 3]
    fitted, features = fit_features(images, changed(params, cells=[16], components=30))
    assert features.shape == (len(images), 30)
    assert features.dtype == np.float32
    assert np.array_equal(fitted(images), features)
    assert features.var(axis=0).sum() == pytest.approx(1, abs=1e-3)
    assert (np.diff(features.var(axis=0)) < 1e-6).all()


def test_the_components_are_those_of_scikit_learn(digits: Digits, params: Params):
    images = digits[0].images
    fitted, features = fit_features(images, changed(params, cells=[8], components=9))
    expected = PCA(9).fit_transform(describe(images, fitted))
    for column in range(5):  # the decomposition is randomised: later ones differ more
        assert abs(np.corrcoef(features[:, column], expected[:, column])[0, 1]) > 0.99


def test_the_kind_pixels_gives_the_pixels_centred_and_scaled(digits: Digits, params: Params):
    images = digits[0].images
    features = fit_features(images, changed(params, kind="pixels"))[1]
    centred = images - images.mean(axis=0)
    expected = centred / np.sqrt(centred.var(axis=0).sum())
    assert np.allclose(features, expected, atol=2.0**-FEATURE_PLACES)


def test_images_that_are_all_alike_are_rejected(params: Params):
    with pytest.raises(StageError, match="the 5 training images are all alike"):
        fit_features(np.full((5, PIXELS), 7, np.uint8), params)


@pytest.mark.parametrize("size", [1, TILE + 3, ROWS_PER_THREAD + 1])
def test_the_features_of_a_batch_are_those_of_its_rows(
    features_of: FeatureMap, digits: Digits, size: int
):
    noise = np.random.default_rng(size).integers(0, 256, (3, PIXELS), dtype=np.uint8)
    images = np.concatenate([noise, noise // 200, digits[0].images])  # some are nearly blank
    images = np.resize(images, (size, PIXELS))
    together = features_of(images)
    assert np.isfinite(together).all()
    for row in {*range(0, size, 50), size - 1}:
        assert np.array_equal(together[row : row + 1], features_of(images[row : row + 1]))


@settings(deadline=None, max_examples=50)
@given(images=images_of, seed=st.integers(0, 2**32 - 1))
def test_sums_have_no_rounding_errors_in_whatever_order_they_are_added(
    features_of: FeatureMap, images: np.ndarray, seed: int
):
    noise = np.random.default_rng(seed).integers(0, 256, (3, PIXELS), dtype=np.uint8)
    fitted = features_of
    descriptors = describe(np.concatenate([images, noise, noise // 255 * 255]), fitted)
    assert (np.linalg.norm(descriptors, axis=1) < 2**6).all()
    if fitted.projection.size:
        order = np.random.default_rng(seed).permutation(len(fitted.projection))
        mixed = fitted._replace(projection=fitted.projection[order])
        exact = descriptors.astype(np.float64) @ fitted.projection
        assert np.array_equal(project(descriptors, fitted), exact)
        assert np.array_equal(project(descriptors[:, order], mixed), exact)


def test_an_image_without_any_gradient_has_finite_features_and_no_image_has_none(
    features_of: FeatureMap,
):
    for value in (0, 1, 127, 255):
        assert np.isfinite(features_of(np.full((2, PIXELS), value, np.uint8))).all()
    assert features_of(np.empty((0, PIXELS), np.uint8)).shape[0] == 0


def test_values_between_whole_numbers_are_rounded():
    rounded = validate_pixels(np.array([[0.4, 0.5, 0.6, 254.6] + [1.5] * (PIXELS - 4)]))
    assert rounded.dtype == np.uint8
    assert rounded[0, :5].tolist() == [0, 0, 1, 255, 2]
