"""The Gaussian kernel, which the SVM and the class scores compare images with."""

import numpy as np


class Rbf:
    """exp(-gamma · squared distance) of any rows to fixed vectors, [m, k]; gamma: > 0.

    dtype: what is computed with, and returned. The squares are part of one matrix product:
    -|a - b|² = [a, -|a|², 1] · [2b, 1, -|b|²].
    """

    def __init__(
        self, vectors: np.ndarray, gamma: float, dtype: type[np.floating] = np.float32
    ) -> None:
        one = np.ones((len(vectors), 1))
        exact = vectors.astype(np.float64)
        squares = (exact**2).sum(axis=1, keepdims=True)
        right = gamma * np.hstack([2 * exact, one, -squares])
        self._right = np.ascontiguousarray(right.T, dtype)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Values [n, m], of rows [n, k]."""
        rows = rows.astype(self._right.dtype, copy=False)
        squares = (rows**2).sum(axis=1, keepdims=True)
        values = np.hstack([rows, -squares, np.ones_like(squares)]) @ self._right
        return np.exp(values, out=values)
