"""Labels of a fitted scikit-learn SVC by float32 matrix products.

scikit-learn's own prediction takes one image and one support vector at a time, in one thread.
One product of all images with all support vectors gives the same labels, many times faster.
"""

from itertools import combinations, pairwise

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

ROWS = 512  # of images a product, which bounds the memory: ROWS × support vectors × 4 bytes


class KernelClassifier:
    """Predicts as a fitted pipeline does whose last step is an SVC, from float32 arrays.

    Source of the decision rule, a vote of each pair of classes, ties to the lower class: Chang
    and Lin, LIBSVM, ACM TIST 2(3), 2011, section 7; the layout of the coefficients: scikit-learn,
    User Guide, 1.4.1.1 "Multi-class classification".
    """

    def __init__(self, pipeline: Pipeline) -> None:
        svc: SVC = pipeline[-1]
        self._prepare = pipeline[:-1]
        self._vectors = svc.support_vectors_.astype(np.float32)
        self._norms = (self._vectors**2).sum(axis=1)
        self._coefficients = svc._dual_coef_.astype(np.float32)
        self._intercepts = svc._intercept_.astype(np.float32)
        ends = np.cumsum(svc.n_support_)
        self._of_class = [slice(*bounds) for bounds in pairwise([0, *ends])]
        self._classes = svc.classes_
        self._kernel = svc.kernel
        self._gamma, self._coef0 = np.float32(svc._gamma), np.float32(svc.coef0)
        self._degree = svc.degree

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Labels of images, [n, features] as the pipeline takes them; int64 [n]."""
        rows = self._prepare.transform(images)
        starts = range(0, len(rows), ROWS)
        winners = [self._winners(self._decisions(rows[start : start + ROWS])) for start in starts]
        return self._classes[np.concatenate(winners)]

    def _decisions(self, rows: np.ndarray) -> np.ndarray:
        kernel = self._kernel_values(rows)
        sums = [kernel[:, part] @ self._coefficients[:, part].T for part in self._of_class]
        pairs = combinations(range(len(sums)), 2)
        return np.stack([sums[i][:, j - 1] + sums[j][:, i] for i, j in pairs], 1) + self._intercepts

    def _kernel_values(self, rows: np.ndarray) -> np.ndarray:
        values = rows @ self._vectors.T
        if self._kernel == "linear":
            return values
        if self._kernel == "rbf":
            values *= 2
            values -= (rows**2).sum(axis=1)[:, None]
            values -= self._norms
            values *= self._gamma
            return np.exp(values, out=values)
        values *= self._gamma
        values += self._coef0
        return np.tanh(values, out=values) if self._kernel == "sigmoid" else values**self._degree

    def _winners(self, decisions: np.ndarray) -> np.ndarray:
        votes = np.zeros((len(decisions), len(self._classes)), dtype=np.int64)
        pairs = combinations(range(len(self._classes)), 2)
        for (i, j), first in zip(pairs, (decisions > 0).T, strict=True):
            votes[:, i] += first
            votes[:, j] += ~first
        return votes.argmax(axis=1)
