"""Rounding after which sums of products have no rounding errors.

A float32 holds 24 binary places. Sums that need no more are the same in whatever order they are
added, for a batch of any size and by any library.
"""

import numpy as np

PLACES = 24
FEATURE_PLACES = 9  # of features and class scores; see features.py


def quantize(values: np.ndarray, places: int) -> np.ndarray:
    """Float32 values, rounded in place to so many binary places."""
    values *= np.float32(2.0**places)
    np.rint(values, out=values)
    values *= np.float32(2.0**-places)
    return values


def exact_weights(weights: np.ndarray, limit: float, places: int) -> np.ndarray:
    """Weights [inputs, outputs] as float32, rounded such that `inputs @ weights` is exact.

    For inputs from -limit to limit of so many binary places.
    """
    largest = limit * float(np.abs(weights).sum(axis=0).max())
    rounding = len(weights) / 2 * limit  # each weight may grow by half of its last place
    kept = int(np.floor(np.log2((2.0 ** (PLACES - places) - rounding) / largest)))
    return quantize(weights.astype(np.float32), kept)
