"""Fit the class scores that are part of the features (serving/fashion/features.py)."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.linalg.lapack import slauum

from serving.fashion.kernel import Rbf
from stages.params import ClassScores
from stages.progress import progress
from stages.split import stratified

ITERATIONS = 6  # the residual has fallen to some percent then; more change no accuracy
JITTER = 1e-6  # keeps a kernel matrix positive definite in float32, even where landmarks repeat
TINY = np.finfo(np.float32).tiny  # of a sum of squares, so that nothing is divided by 0
ROWS = 1000  # of images at once, which the processor's cache keeps from one product to the next


class Scores(NamedTuple):
    """Fields of Features, fitted; and float32 [n, classes], the scores of the training images."""

    landmarks: np.ndarray
    gamma: np.ndarray
    weights: np.ndarray
    own: np.ndarray


def fit_scores(features: np.ndarray, labels: np.ndarray, params: ClassScores) -> Scores:
    """Fit on float32 [n, k] features with labels [n], 0 to classes - 1.

    The weights score images that are not among these; each of these is scored by a regression on
    other folds, which has not seen its label. Takes n × landmarks × 4 bytes of memory.

    Sources: Rudi, Carratino and Rosasco, FALKON: an optimal large scale kernel method, NIPS 2017
    (kernel ridge regression on landmarks by preconditioned conjugate gradients, here for all folds
    at once); Wolpert, Stacked generalization, Neural Networks 5, 1992 (folds).
    """
    count = min(params.landmarks or 0, len(labels))
    landmarks = features[stratified(labels, count, params.seed)]
    kernel = Rbf(landmarks, params.gamma)
    targets = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    targets -= targets.mean(axis=0)
    fold_of = np.random.default_rng(params.seed).permutation(len(labels)) % params.folds
    # How much an image counts in a regression: one for each fold, on the others, and one on all.
    shares = np.ones((len(labels), params.folds + 1), np.float32)
    shares[np.arange(len(labels)), fold_of] = 0
    shares /= shares.sum(axis=0)

    with progress("scoring the classes", 1 + ITERATIONS, "steps") as advance:
        values = np.empty((len(labels), count), np.float32)
        for start in range(0, len(labels), ROWS):
            values[start : start + ROWS] = kernel(features[start : start + ROWS])
        preconditioner = _Preconditioner(kernel(landmarks), params.ridge)
        advance(1)
        weights = _regress(values, targets, shares, preconditioner, advance)
    scores = (values @ weights).reshape(len(labels), -1, targets.shape[1])
    scale = np.float32(params.weight)
    return Scores(
        landmarks,
        np.array(params.gamma, np.float32),
        weights[:, -targets.shape[1] :] * scale,
        scores[np.arange(len(labels)), fold_of] * scale,
    )


class _Preconditioner:
    """FALKON's change of variables, in which all directions are nearly equally steep.

    kernel: float32 [m, m], of the landmarks; is overwritten.
    """

    def __init__(self, kernel: np.ndarray, ridge: float) -> None:
        count, self.ridge = len(kernel), ridge
        kernel[np.diag_indices(count)] += JITTER * count
        self._outer = cholesky(kernel.T, overwrite_a=True, check_finite=False)
        inner = slauum(self._outer)[0]
        inner /= count
        inner[np.diag_indices(count)] += ridge
        self._inner = cholesky(inner, overwrite_a=True, check_finite=False)

    def weights(self, variables: np.ndarray) -> np.ndarray:
        """The weights [m, c] that these variables [m, c] stand for."""
        return self._solve(self._outer, self._solve(self._inner, variables))

    def gradient(self, moments: np.ndarray) -> np.ndarray:
        """By the variables, where `moments` is by the weights; both [m, c]."""
        return self._solve(self._inner, self._solve(self._outer, moments, "T"), "T")

    def penalty(self, variables: np.ndarray) -> np.ndarray:
        """The ridge's part of the gradient."""
        return self.ridge * self._solve(self._inner, self._solve(self._inner, variables), "T")

    def _solve(self, factor: np.ndarray, right: np.ndarray, trans: str = "N") -> np.ndarray:
        return solve_triangular(factor, right, trans=trans, check_finite=False)


def _regress(
    values: np.ndarray,
    targets: np.ndarray,
    shares: np.ndarray,
    preconditioner: _Preconditioner,
    advance: Callable[[int], None],
) -> np.ndarray:
    """Weights, float32 [m, regressions × classes], by conjugate gradients, all at once.

    values: of the kernel, float32 [n, m]; targets: float32 [n, classes]; shares: float32
    [n, regressions].
    """
    classes, regressions = targets.shape[1], shares.shape[1]

    def moments(weights: np.ndarray | None) -> np.ndarray:
        total = np.zeros((values.shape[1], regressions * classes), np.float32)
        for start in range(0, len(values), ROWS):
            block = slice(start, start + ROWS)
            wanted = np.tile(targets[block], regressions)
            outputs = wanted if weights is None else values[block] @ weights
            total += values[block].T @ (np.repeat(shares[block], classes, axis=1) * outputs)
        return total

    residual = preconditioner.gradient(moments(None))
    solution, direction = np.zeros_like(residual), residual
    norm = (residual**2).sum(axis=0)
    for _ in range(ITERATIONS):
        change = preconditioner.gradient(moments(preconditioner.weights(direction)))
        change += preconditioner.penalty(direction)
        step = norm / np.maximum((direction * change).sum(axis=0), TINY)
        solution += step * direction
        residual = residual - step * change
        before, norm = norm, (residual**2).sum(axis=0)
        direction = residual + norm / np.maximum(before, TINY) * direction
        advance(1)
    return preconditioner.weights(solution)
