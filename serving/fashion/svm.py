"""Decisions and probabilities of a fitted scikit-learn SVC, by matrix products.

scikit-learn's own prediction takes one image and one support vector at a time, in one thread.
One product of all images with all support vectors decides the same, many times faster.
"""

from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
from scipy.special import log_expit, log_softmax
from sklearn.svm import SVC

from .kernel import Rbf


class PairwiseDecisions:
    """Decides between each pair of classes as a fitted SVC does, an image alike in every batch.

    Source of the decision rule: Chang and Lin, LIBSVM, ACM TIST 2(3), 2011, section 7; the layout
    of the coefficients: scikit-learn, User Guide, 1.4.1.1 "Multi-class classification".
    """

    def __init__(self, svc: SVC) -> None:
        self._kernel_values = _kernel(svc)
        self._coefficients = svc._dual_coef_.astype(np.float64)
        self._intercepts = svc._intercept_.astype(np.float64)
        ends = np.cumsum(svc.n_support_)
        self._of_class = [slice(*bounds) for bounds in pairwise([0, *ends])]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Above 0 where the first of a pair wins, in the order 01, 02 … 12 …

        rows: float32 [n, k], features; returns float64 [n, pairs]. Takes n × support vectors × 4
        bytes of memory.
        """
        kernel = self._kernel_values(rows)
        sums = [
            kernel[:, part].astype(np.float64) @ self._coefficients[:, part].T
            for part in self._of_class
        ]
        pairs = combinations(range(len(sums)), 2)
        return np.stack([sums[i][:, j - 1] + sums[j][:, i] for i, j in pairs], 1) + self._intercepts


def _kernel(svc: SVC) -> Callable[[np.ndarray], np.ndarray]:
    """What gives the kernel values, float32 [n, vectors], of rows, float32 [n, k]."""
    if svc.kernel == "rbf":
        return Rbf(svc.support_vectors_, svc._gamma)
    vectors = np.ascontiguousarray(svc.support_vectors_.T, np.float32)
    if svc.kernel == "linear":
        return lambda rows: rows @ vectors
    gamma, coef0 = np.float32(svc._gamma), np.float32(svc.coef0)
    if svc.kernel == "sigmoid":
        return lambda rows: np.tanh(gamma * (rows @ vectors) + coef0)
    return lambda rows: (gamma * (rows @ vectors) + coef0) ** svc.degree


def couple(decisions: np.ndarray, temperature: float) -> np.ndarray:
    """Log probability of each class from the decisions of all pairs; float64 [n, classes].

    decisions: [n, pairs], as above; temperature: > 0, divides them. The probability of a class is
    proportional to the product, over its pairs, of the logistic function of its decisions.

    Sources: Platt, Probabilistic outputs for support vector machines, 1999 (the logistic function);
    Wu, Lin and Weng, JMLR 5, 2004, compare ways to couple pairs; this one needs no iteration.
    """
    classes = round((1 + np.sqrt(1 + 8 * decisions.shape[1])) / 2)
    first, second = np.array(list(combinations(range(classes), 2))).T
    scaled = decisions.astype(np.float64) / temperature
    wins = log_expit(scaled) @ np.eye(classes)[first]
    return log_softmax(wins + log_expit(-scaled) @ np.eye(classes)[second], axis=1)
