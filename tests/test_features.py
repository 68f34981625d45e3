"""Features are functions of the pixels alone.  Run: pytest tests/test_features.py"""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.fashion.contract import PIXELS
from serving.fashion.features import (
    CHUNK,
    Features,
    PixelError,
    checked,
    read_features,
    transform,
)
from stages import params as sections
from stages.dataset import Images
from stages.errors import StageError
from stages.preprocess import fit_features


def close(some: np.ndarray, others: np.ndarray) -> bool:
    """Equal, but for sums that are rounded in another order."""
    return np.allclose(some, others, rtol=1e-4, atol=1e-6)


images_of = arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(PIXELS)))


@pytest.fixture(scope="module", params=["hog", "pixels", "all descriptors"])
def fitted(request: pytest.FixtureRequest, digits: tuple[Images, Images]) -> Features:
    section = sections.Features(
        kind="pixels" if request.param == "pixels" else "hog",
        cells=[8, 16],
        bins=12,
        pixel_weight=0.15,
        components=None if request.param == "all descriptors" else 40,
    )
    return fit_features(digits[0].images[:300], section)[0]


def test_the_features_of_the_training_images_are_those_of_the_map_and_vary_by_1_in_all(
    digits: tuple[Images, Images],
):
    section = sections.Features(kind="hog", cells=[16], bins=9, pixel_weight=0.5, components=30)
    images = digits[0].images[: CHUNK + 3]
    fitted, features = fit_features(images, section)
    assert features.shape == (len(images), 30)
    assert features.dtype == np.float32
    assert close(transform(images, fitted), features)
    assert features.var(axis=0).sum() == pytest.approx(1, abs=1e-3)
    assert (np.diff(features.var(axis=0)) < 1e-6).all()


def test_the_kind_pixels_gives_the_pixels_centred_and_scaled(digits: tuple[Images, Images]):
    section = sections.Features(kind="pixels", cells=[8], bins=9, pixel_weight=0.5, components=30)
    images = digits[0].images
    features = fit_features(images, section)[1]
    centred = images - images.mean(axis=0)
    assert np.allclose(features, centred / np.sqrt(centred.var(axis=0).sum()), atol=1e-4)


def test_images_that_are_all_alike_are_refused():
    section = sections.Features(kind="pixels", cells=[8], bins=9, pixel_weight=1, components=None)
    with pytest.raises(StageError, match="the 5 training images are all alike"):
        fit_features(np.full((5, PIXELS), 7, np.uint8), section)


def test_a_map_is_saved_as_plain_arrays(tmp_path: Path, fitted: Features):
    np.savez(tmp_path / "features.npz", **fitted._asdict())
    reread = read_features(tmp_path / "features.npz")
    for name, value in fitted._asdict().items():
        assert np.array_equal(getattr(reread, name), value), name


@settings(deadline=None, max_examples=25)
@given(images=images_of)
def test_the_features_of_a_batch_are_those_of_its_rows(fitted: Features, images: np.ndarray):
    together = transform(images, fitted)
    alone = np.concatenate([transform(image[None], fitted) for image in images])
    assert np.isfinite(together).all()
    assert close(together, alone)


@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_features_do_not_depend_on_the_size_of_the_batch(
    fitted: Features, digits: tuple[Images, Images], size: int
):
    images = np.resize(digits[0].images, (size, PIXELS))
    assert close(transform(images, fitted)[-1:], transform(images[-1:], fitted))


@settings(deadline=None, max_examples=25)
@given(images=images_of)
def test_features_do_not_depend_on_memory_order_or_type(fitted: Features, images: np.ndarray):
    features = transform(images, fitted)
    for same in (np.asfortranarray(images), np.repeat(images, 2, axis=0)[::2]):
        assert np.array_equal(transform(same, fitted), features)
    for dtype in (np.int16, np.int64, np.uint64, np.float16, np.float32, np.float64):
        assert np.array_equal(transform(images.astype(dtype), fitted), features)


@settings(deadline=None, max_examples=25)
@given(images=images_of)
def test_a_flipped_image_has_finite_and_other_features(fitted: Features, images: np.ndarray):
    images[:, 0], images[:, 27] = 0, 255  # so that none is its own mirror image
    flipped = images.reshape(-1, 28, 28)[:, :, ::-1].reshape(-1, PIXELS)
    features, mirrored = transform(images, fitted), transform(flipped, fitted)
    assert np.isfinite(mirrored).all()
    assert not close(features, mirrored)


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_a_constant_image_without_any_gradient_has_finite_features(fitted: Features, value: int):
    assert np.isfinite(transform(np.full((2, PIXELS), value), fitted)).all()


def test_no_image_has_no_features(fitted: Features):
    assert transform(np.empty((0, PIXELS)), fitted).shape[0] == 0


def test_values_between_whole_numbers_are_rounded():
    rounded = checked(np.array([[0.4, 0.5, 0.6, 254.6] + [1.5] * (PIXELS - 4)]))
    assert rounded.dtype == np.uint8
    assert rounded[0, :5].tolist() == [0, 0, 1, 255, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1, -0.51, 255.5, 256, 1e300])
def test_a_value_that_no_pixel_has_is_refused_with_its_place(fitted: Features, value: float):
    images = np.zeros((3, PIXELS))
    images[1, 17] = value
    message = f"expected pixel values from 0 to 255, got {images[1, 17]} at image 1, pixel 17"
    with pytest.raises(PixelError, match=re.escape(message)):
        transform(images, fitted)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 783)), r"expected images of shape \[n, 784\], got \[1, 783\]"),
        (np.zeros(784), r"got \[784\]"),
        (np.zeros((1, 28, 28)), r"got \[1, 28, 28\]"),
        (np.float64(3), r"got \[\]"),
        (np.full((1, 784), "x"), "expected pixel values as numbers, got <U1"),
        (np.full((1, 784), None), "expected pixel values as numbers, got object"),
        (np.zeros((1, 784), bool), "expected pixel values as numbers, got bool"),
        (np.zeros((1, 784), complex), "expected pixel values as numbers, got complex128"),
    ],
)
def test_what_is_no_image_is_refused_with_what_came(
    fitted: Features, images: np.ndarray, message: str
):
    with pytest.raises(PixelError, match=message):
        transform(images, fitted)
