"""FeatureArrays are functions of the pixels alone.  Run: pytest tests/test_features.py"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scratch import Digits, fit_features
from sklearn.decomposition import PCA

from serving.fashion.contract import PIXELS, SIDE
from serving.fashion.model import dictionary
from serving.fashion.model.dictionary import CELL_LIMIT, CELL_PLACES, TILE
from serving.fashion.model.exact import exact_weights
from serving.fashion.model.features import (
    FEATURE_PLACES,
    ROWS_PER_THREAD,
    FeatureMap,
    describe,
    project,
)
from serving.fashion.model.inputs import read_features
from serving.fashion.model.kernel import Rbf
from serving.fashion.model.pixels import validate_pixels
from stages.console import StageError
from stages.params import Params
from stages.training.features import fit_map

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


def test_a_map_is_saved_as_plain_arrays(tmp_path: Path, features_of: FeatureMap):
    fitted = features_of._asdict()
    np.savez(tmp_path / "features.npz", **fitted)
    reread = read_features(tmp_path / "features.npz")
    for name, value in fitted.items():
        assert np.array_equal(getattr(reread, name), value), name


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


@settings(deadline=None, max_examples=25)
@given(images=images_of)
def test_squared_distances_of_features_are_exact(
    features_of: FeatureMap, digits: Digits, images: np.ndarray
):
    rows, vectors = features_of(images), features_of(digits[1].images[:20])
    distances = ((rows.astype(np.float64)[:, None] - vectors) ** 2).sum(axis=2)
    expected = np.exp(-np.float32(0.5) * distances.astype(np.float32))
    assert np.array_equal(distances.astype(np.float32), distances)
    assert np.array_equal(Rbf(vectors, 0.5)(rows), expected)


@settings(deadline=None, max_examples=25)
@given(images=images_of)
def test_features_do_not_depend_on_memory_order_or_type(
    features_of: FeatureMap, images: np.ndarray
):
    features = features_of(images)
    for same in (np.asfortranarray(images), np.repeat(images, 2, axis=0)[::2]):
        assert np.array_equal(features_of(same), features)
    for dtype in (np.int16, np.int64, np.uint64, np.float16, np.float32, np.float64):
        assert np.array_equal(features_of(validate_pixels(images.astype(dtype))), features)


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


@pytest.fixture(scope="module")
def small_map(digits: Digits, params: Params) -> FeatureMap:
    section = params.features.model_copy(update={"directions": [6, 10]})
    return fit_map(digits[0].images[:300], section)


def patches_at(maps: np.ndarray, side: int) -> dict[tuple[int, int], np.ndarray]:
    """Patches of maps [c, s, s], by the place of their corner, each [side · side · c]."""
    size = maps.shape[-1] - side + 1
    return {
        (row, column): maps[:, row : row + side, column : column + side]
        .transpose(1, 2, 0)
        .ravel()
        .astype(np.float64)
        for row in range(size)
        for column in range(size)
    }


def test_a_cell_is_the_root_of_the_mean_of_the_largest_responses_around_it(
    small_map: FeatureMap, digits: Digits
):
    image = digits[1].images[0]
    square = np.pad(image.reshape(1, SIDE, SIDE), ((0, 0), (2, 2), (2, 2)))
    largest = np.zeros((6, 14, 14))
    for (row, column), patch in patches_at(square, 5).items():
        strength = np.sqrt(patch.var() + small_map.contrast[0])
        found = np.abs((patch - patch.mean()) @ small_map.patches) / strength
        block = largest[:, row // 2, column // 2]
        np.maximum(block, found, out=block)
    total = np.zeros((6, 7, 7))
    around = np.pad(largest, ((0, 0), (1, 1), (1, 1)))
    weights = np.array([1, 3, 3, 1]) / 8
    for row, column in np.ndindex(7, 7):
        blocks = around[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
        total[:, row, column] = np.einsum("kij,i,j->k", blocks, weights, weights)
    cells = dictionary.cells(image[None], small_map)[..., 0]
    assert np.ptp(total) > 1
    assert np.allclose(cells, np.sqrt(total), atol=0.02)
    assert np.abs(cells - np.sqrt(total)).mean() < 0.005


def test_a_response_is_the_largest_of_a_block_of_patches_of_cells(
    small_map: FeatureMap, digits: Digits
):
    image = digits[1].images[0]
    channels = dictionary.channels(image[None], small_map)[..., 0]
    largest = np.zeros((20, 3, 3))
    for (row, column), patch in patches_at(channels, 2).items():
        strength = np.sqrt((patch**2).mean() + small_map.contrast[1])
        found = patch @ small_map.regions / strength - small_map.region_offset
        block = largest[:, row // 2, column // 2]
        np.maximum(block, np.concatenate([found, -found]) - 0.6, out=block)
    responses = dictionary.filter_responses(image[None], small_map).reshape(20, 3, 3)
    assert np.ptp(largest) > 1
    assert np.allclose(responses, np.sqrt(largest), atol=1e-3)


@given(
    inputs=st.integers(1, 300), limit=st.sampled_from([1.0, 4.0, 255.0]), seed=st.integers(0, 999)
)
def test_products_with_exact_weights_have_no_rounding_errors(inputs: int, limit: float, seed: int):
    random = np.random.default_rng(seed)
    places = 0 if limit > CELL_LIMIT else CELL_PLACES
    weights = exact_weights(
        random.normal(size=(inputs, 5)) * 10.0 ** random.integers(-3, 3), limit, places
    )
    steps = int(limit * 2**places)
    rows = random.choice([-steps, steps, *random.integers(-steps, steps + 1, 20)], (40, inputs))
    rows = (rows / 2**places).astype(np.float32)
    assert np.array_equal(rows @ weights, rows.astype(np.float64) @ weights)
