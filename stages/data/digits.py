"""The small data set that scikit-learn bundles, in the form of the other one."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from serving.fashion.contract import CLASS_NAMES, PIXEL_MAX, PIXELS
from stages.data.processed import Images


def make_digits() -> tuple[Images, Images]:
    """The 1,797 UCI digits that scikit-learn bundles, as 28×28 images: 1,497 to train, 300 to test.

    Each of their 8×8 pixels, 0 to 16, becomes 3×3 pixels, 0 to 255, inside a border of 2.
    """
    digits = load_digits()
    enlarged = np.kron(digits.images, np.ones((1, 3, 3)))
    framed = np.pad(enlarged, ((0, 0), (2, 2), (2, 2)))
    images = np.rint(framed / digits.images.max() * PIXEL_MAX).astype(np.uint8).reshape(-1, PIXELS)
    parts = train_test_split(
        images, digits.target, test_size=300, stratify=digits.target, random_state=0
    )
    names = CLASS_NAMES["digits"]
    return Images(parts[0], parts[2], names), Images(parts[1], parts[3], names)
