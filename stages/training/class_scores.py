"""Fit the class scores, which the trees see (serving/fashion/model/scores.py)."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.linalg.lapack import slauum

from serving.fashion.model.exact import FEATURE_PLACES, quantize
from serving.fashion.model.kernel import Rbf
from serving.fashion.model.scores import ScoreArrays
from stages.console import progress
from stages.data.arrays import blocks
from stages.data.splits import stratified
from stages.params import ClassScores

ITERATIONS = 6  # the residual has fallen to some percent then; more change no accuracy
JITTER = 1e-6  # keeps a kernel matrix positive definite in float32, even where landmarks repeat
TINY = np.finfo(np.float32).tiny  # of a sum of squares, so that nothing is divided by 0
CACHE_BYTES = 1_440_000_000  # of kernel values; those of more images are computed each time anew
ROWS = 1000  # of images at once, which the processor's cache keeps from one product to the next

_solve = partial(solve_triangular, check_finite=False)


class FittedScores(NamedTuple):
    """arrays: to score any image by; out_of_fold: of the training images, [n, classes]."""

    arrays: ScoreArrays
    out_of_fold: np.ndarray


def fit_class_scores(features: np.ndarray, labels: np.ndarray, params: ClassScores) -> FittedScores:
    """Fit on float32 [n, k] features with labels [n], 0 to classes - 1.

    The weights score images that are not among these; each of these is scored by a regression on
    other folds, without its label. Takes CACHE_BYTES of memory at most, and some times
    landmarks² × 4 bytes.

    Sources: Rudi, Carratino and Rosasco, FALKON: an optimal large scale kernel method, NIPS 2017
    (kernel ridge regression on landmarks by preconditioned conjugate gradients, here for all folds
    at once); Wolpert, Stacked generalization, Neural Networks 5, 1992 (folds).
    """
    count = min(params.landmarks or 0, len(labels))
    landmarks = features[stratified(labels, count, params.seed)]
    kernel = Rbf(landmarks, params.gamma)
    targets = _Targets(labels, params)
    with progress("scoring the classes", (3 + ITERATIONS) * len(labels), "images") as advance:
        values = _KernelValues(features, kernel, count, advance)
        preconditioner = _Preconditioner(kernel(landmarks), params.ridge)
        weights = _regress(values, targets, preconditioner)
        scores = [targets.out_of_fold(rows, block @ weights) for rows, block in values]
    scale, gamma = np.float32(params.weight), np.array(params.gamma, np.float32)
    fitted = ScoreArrays(landmarks, gamma, weights[:, -targets.classes :] * scale)
    return FittedScores(fitted, quantize(np.concatenate(scores) * scale, FEATURE_PLACES))


class _Targets:
    """Targets and weights of regressions: one for each fold, on the other folds, and one on all."""

    def __init__(self, labels: np.ndarray, params: ClassScores) -> None:
        self._labels, counts = labels, np.bincount(labels)
        self.classes, self.regressions = len(counts), params.folds + 1
        self._one_hot = np.eye(self.classes, dtype=np.float32)
        self._one_hot -= (counts / len(labels)).astype(np.float32)
        random = np.random.default_rng(params.seed)
        self._folds = (random.permutation(len(labels)) % params.folds).astype(np.uint8)
        self._sizes = len(labels) - np.bincount(self._folds, minlength=self.regressions)

    def values(self, rows: slice) -> np.ndarray:
        """Targets, float32 [m, regressions × classes]."""
        return np.tile(self._one_hot[self._labels[rows]], self.regressions)

    def shares(self, rows: slice) -> np.ndarray:
        """Weights of the images, float32 [m, regressions × classes]."""
        folds = self._folds[rows]
        shares = np.ones((len(folds), self.regressions), np.float32) / self._sizes
        shares[np.arange(len(folds)), folds] = 0
        return np.repeat(shares.astype(np.float32), self.classes, axis=1)

    def out_of_fold(self, rows: slice, outputs: np.ndarray) -> np.ndarray:
        """Of outputs [m, regressions × classes], those of regressions without the image's fold."""
        folds = self._folds[rows]
        by_regression = outputs.reshape(len(folds), self.regressions, self.classes)
        return by_regression[np.arange(len(folds)), folds]


class _KernelValues:
    """Of training images with the landmarks, [n, m]; kept as far as CACHE_BYTES go."""

    def __init__(
        self, features: np.ndarray, kernel: Rbf, count: int, advance: Callable[[int], None]
    ) -> None:
        self._features, self._kernel, self._advance = features, kernel, advance
        self._kept = np.empty((min(len(features), CACHE_BYTES // 4 // count), count), np.float32)
        for rows in blocks(len(self._kept), ROWS):
            self._kept[rows] = kernel(features[rows])
            advance(rows.stop - rows.start)

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        """ROWS images at a time: which ones, and their values, float32 [≤ ROWS, m]."""
        for rows in blocks(len(self._features), ROWS):
            is_kept = rows.stop <= len(self._kept)
            yield rows, self._kept[rows] if is_kept else self._kernel(self._features[rows])
            self._advance(rows.stop - rows.start)


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
        return _solve(self._outer, _solve(self._inner, variables))

    def gradient(self, moments: np.ndarray) -> np.ndarray:
        """By the variables, where `moments` is by the weights; both [m, c]."""
        return _solve(self._inner, _solve(self._outer, moments, trans="T"), trans="T")

    def penalty(self, variables: np.ndarray) -> np.ndarray:
        """The ridge's part of the gradient."""
        return self.ridge * _solve(self._inner, _solve(self._inner, variables), trans="T")


def _regress(
    values: _KernelValues, targets: _Targets, preconditioner: _Preconditioner
) -> np.ndarray:
    """Weights, float32 [m, regressions × classes], by conjugate gradients, all at once."""

    def moments(weights: np.ndarray | None) -> np.ndarray:
        total: np.ndarray | float = 0.0
        for rows, kernel_block in values:
            outputs = targets.values(rows) if weights is None else kernel_block @ weights
            total = total + kernel_block.T @ (targets.shares(rows) * outputs)
        return np.asarray(total, np.float32)

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
    return preconditioner.weights(solution)
