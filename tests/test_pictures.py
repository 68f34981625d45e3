"""Pictures become what the models know.  Run: pytest tests/test_pictures.py"""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.fashion.model.pictures import read_picture

random = np.random.default_rng(5)


def file(picture: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    content = BytesIO()
    picture.save(content, kind, **more)
    return content.getvalue()


def read(picture: Image.Image, invert: bool = False) -> np.ndarray:
    return read_picture(file(picture), invert).reshape(28, 28)


def test_a_grey_picture_of_28_by_28_comes_through_as_it_is():
    pixels = random.integers(0, 256, (28, 28), dtype=np.uint8)
    assert np.array_equal(read(Image.fromarray(pixels)), pixels)
    assert np.array_equal(read(Image.fromarray(pixels), invert=True), 255 - pixels)


def test_colours_become_as_bright_as_they_look():
    colours = {"red": 76, "lime": 150, "blue": 29, "white": 255, "black": 0}  # ITU-R 601
    for name, grey in colours.items():
        assert (np.abs(read(Image.new("RGB", (28, 28), name)).astype(int) - grey) <= 1).all(), name


@pytest.mark.parametrize(
    ("size", "filled"),
    [((280, 140), (28, 14)), ((50, 200), (7, 28)), ((7, 7), (28, 28))],
)
def test_the_longer_edge_fills_the_image_and_the_rest_is_black_on_both_sides(
    size: tuple[int, int], filled: tuple[int, int]
):
    seen = read(Image.new("L", size, 255))
    expected = np.zeros((28, 28), np.uint8)
    left, top = (28 - filled[0]) // 2, (28 - filled[1]) // 2
    expected[top : top + filled[1], left : left + filled[0]] = 255
    assert np.array_equal(seen > 127, expected > 127)


def test_dark_on_bright_is_bright_on_black_when_inverted_with_black_around():
    picture = Image.new("L", (40, 80), 255)
    picture.paste(0, (10, 20, 30, 60))
    seen = read(picture, invert=True)
    assert seen[14, 14] == 255
    assert seen[0, 14] == seen[14, 0] == 0


@pytest.mark.parametrize("invert", [False, True])
def test_what_is_transparent_becomes_ground(invert: bool):
    picture = Image.new("RGBA", (28, 28), (255, 0, 255, 0))
    assert not read(picture, invert).any()


def test_sixteen_bits_keep_their_shades():
    deep = (np.arange(784).reshape(28, 28) * 83).astype(np.uint16)
    assert np.array_equal(read(Image.fromarray(deep)), deep // 257)


def test_one_bit_and_palettes_are_read():
    pixels = np.zeros((28, 28), np.uint8)
    pixels[5:20, 8:15] = 255
    for mode in ("1", "P", "LA"):
        assert np.array_equal(read(Image.fromarray(pixels).convert(mode)), pixels), mode


def test_a_photograph_that_lies_on_its_side_is_put_upright():
    picture = Image.new("L", (40, 40))
    picture.paste(255, (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned to the right
    seen = read_picture(file(picture, "JPEG", exif=exif), invert=False).reshape(28, 28)
    assert seen[:, 20:].mean() > 200
    assert seen[:, :8].mean() < 50
