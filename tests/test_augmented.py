"""Copies of images, shifted and mirrored.  Run: pytest tests/test_augmented.py"""

import numpy as np
import pytest

from benchmarks.augmented import BLOCK, COPIES, augmented, changed
from serving.fashion.contract import PIXELS, SIDE
from stages.data.processed import Images


def test_the_first_copy_is_the_images_and_no_other_is_like_it(small: Images):
    copies = list(augmented(small.images, small.labels, COPIES))
    assert np.array_equal(copies[0][0], small.images)
    assert len({images.tobytes() for images, _ in copies}) == COPIES
    for images, labels in copies:
        assert images.shape == small.images.shape
        assert images.dtype == np.uint8
        assert np.array_equal(labels, small.labels)


def test_fewer_copies_are_the_first_of_more(small: Images):
    few, more = (list(augmented(small.images, small.labels, n)) for n in (3, 5))
    for one, other in zip(few, more[:3], strict=True):
        assert np.array_equal(one[0], other[0])


def test_a_pixel_is_shifted_and_mirrored():
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[10, 3] = 255
    shifted = changed(image.reshape(1, PIXELS), -2, 1, False).reshape(SIDE, SIDE)
    assert shifted[8, 4] == shifted.sum() == 255
    mirrored = changed(image.reshape(1, PIXELS), 0, 2, True).reshape(SIDE, SIDE)
    assert mirrored[10, SIDE - 1 - 3 + 2] == mirrored.sum() == 255


def test_many_images_come_in_blocks():
    images, labels = np.zeros((BLOCK + 1, PIXELS), np.uint8), np.zeros(BLOCK + 1, np.uint8)
    assert [len(block) for block, _ in augmented(images, labels, 2)] == [BLOCK, 1, BLOCK, 1]


@pytest.mark.parametrize("copies", [0, COPIES + 1])
def test_copies_that_there_cannot_be_are_refused(small: Images, copies: int):
    with pytest.raises(ValueError, match="expected 1 to 50"):
        next(augmented(small.images, small.labels, copies))
