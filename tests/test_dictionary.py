"""Responses are what dictionaries define.  Run: pytest tests/test_dictionary.py"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scratch import Digits

from serving.fashion.contract import PIXEL_MAX, PIXELS, SIDE
from serving.fashion.model import dictionary
from serving.fashion.model.dictionary import CELL_LIMIT, CELL_PLACES, TILE
from serving.fashion.model.exact import exact_weights
from serving.fashion.model.features import FeatureMap
from stages.params import Params
from stages.training.features import fit_map


@pytest.fixture(scope="module")
def fitted(digits: Digits, params: Params) -> FeatureMap:
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
    fitted: FeatureMap, digits: Digits
):
    image = digits[1].images[0]
    square = np.pad(image.reshape(1, SIDE, SIDE), ((0, 0), (2, 2), (2, 2)))
    largest = np.zeros((6, 14, 14))
    for (row, column), patch in patches_at(square, 5).items():
        strength = np.sqrt(patch.var() + fitted.contrast[0])
        found = np.abs((patch - patch.mean()) @ fitted.patches) / strength
        block = largest[:, row // 2, column // 2]
        np.maximum(block, found, out=block)
    total = np.zeros((6, 7, 7))
    around = np.pad(largest, ((0, 0), (1, 1), (1, 1)))
    weights = np.array([1, 3, 3, 1]) / 8
    for row, column in np.ndindex(7, 7):
        blocks = around[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
        total[:, row, column] = np.einsum("kij,i,j->k", blocks, weights, weights)
    cells = dictionary.cells(image[None], fitted)[..., 0]
    assert np.ptp(total) > 1
    assert np.allclose(cells, np.sqrt(total), atol=0.02)
    assert np.abs(cells - np.sqrt(total)).mean() < 0.005


def test_a_response_is_the_largest_of_a_block_of_patches_of_cells(
    fitted: FeatureMap, digits: Digits
):
    image = digits[1].images[0]
    channels = dictionary.channels(image[None], fitted)[..., 0]
    largest = np.zeros((20, 3, 3))
    for (row, column), patch in patches_at(channels, 2).items():
        strength = np.sqrt((patch**2).mean() + fitted.contrast[1])
        found = patch @ fitted.regions / strength - fitted.region_offset
        block = largest[:, row // 2, column // 2]
        np.maximum(block, np.concatenate([found, -found]) - 0.6, out=block)
    responses = dictionary.filter_responses(image[None], fitted).reshape(20, 3, 3)
    assert np.ptp(largest) > 1
    assert np.allclose(responses, np.sqrt(largest), atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 3 * TILE), seed=st.integers(0, 2**32 - 1))
def test_an_image_has_the_same_responses_in_any_batch(fitted: FeatureMap, count: int, seed: int):
    images = np.random.default_rng(seed).integers(0, 256, (count, PIXELS), dtype=np.uint8)
    images[::2] //= 200  # nearly blank ones, too
    together = dictionary.filter_responses(images, fitted)
    alone = np.concatenate([dictionary.filter_responses(image[None], fitted) for image in images])
    assert np.array_equal(together, alone)


def test_what_a_patch_of_pixels_has_in_common_changes_nothing(fitted: FeatureMap):
    assert np.allclose(fitted.patches.sum(axis=0), 0, atol=1e-2)
    flat = dictionary.cells(np.full((1, PIXELS), PIXEL_MAX, np.uint8), fitted)
    assert flat[:, 2:5, 2:5].max() < 0.05  # weights are rounded; other cells are above 1
    assert flat.max() > 1


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
