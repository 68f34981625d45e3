"""The Gaussian kernel, of the SVM and the class scores."""

import numpy as np


class Rbf:
    """exp(-gamma · squared distance) of any rows to fixed vectors, [m, k]; gamma: > 0.

    The squared distances are one matrix product of float32:
    -|a - b|² = [a, -|a|², 1] · [2b, 1, -|b|²].
    """

    def __init__(self, vectors: np.ndarray, gamma: float) -> None:
        one = np.ones((len(vectors), 1))
        exact = vectors.astype(np.float64)
        squares = (exact**2).sum(axis=1, keepdims=True)
        self._right = np.ascontiguousarray(np.hstack([2 * exact, one, -squares]).T, np.float32)
        self._gamma = np.float32(gamma)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Values, float32 [n, m], of rows, float32 [n, k]."""
        squares = (rows**2).sum(axis=1, keepdims=True)
        values = np.hstack([rows, -squares, np.ones_like(squares)]) @ self._right
        if self._gamma != 1:
            values *= self._gamma
        return np.exp(values, out=values)
