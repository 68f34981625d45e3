"""Fit the SVM's approximation: Nyström features of the kernel, and a linear SVM on them.

Time is linear in the images, and memory does not grow with them: blocks of them are read, in
another order in each pass. Sources: Williams and Seeger, Using the Nyström method to speed up
kernel machines, NIPS 2000; Bottou, Large-scale machine learning with stochastic gradient descent,
COMPSTAT 2010.
"""

from collections.abc import Iterator
from itertools import combinations

import joblib
import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import SGDClassifier
from sklearn.multiclass import OneVsOneClassifier
from sklearn.pipeline import Pipeline

from serving.fashion.model.svm import kernel
from stages.console import progress
from stages.data.arrays import blocks
from stages.data.splits import stratified
from stages.params import Svm

SEED = 7
BLOCK = 10_000  # images at once; takes that × landmarks × 4 bytes of memory, a few times
SHOWN = 300_000  # images in all, about
PASSES = 2, 20  # over all images, at least and at most
STEP = 1.0  # the first one, of features of length 1; falls to 0, linearly


def train(features: np.ndarray, labels: np.ndarray, params: Svm, gamma: float) -> Pipeline:
    """Fit on float32 [n, k] features with labels [n].

    gamma: of the kernel, as a number. C means what it does to an SVC: each pair of classes has a
    linear SVM of that C. scikit-learn's averaging of SGD is no use here: partial_fit resets the
    average of the intercept. A step that falls to 0 is as accurate.
    """
    nystroem = _nystroem(features, labels, params, gamma)
    values = kernel(nystroem, nystroem.components_, gamma)
    classes, counts = np.unique(labels.astype(np.int64), return_counts=True)
    linear = OneVsOneClassifier(SGDClassifier(learning_rate="constant", random_state=SEED))
    passes = int(np.clip(SHOWN // len(labels), *PASSES))
    shown, step = 0, 0.0
    with (
        progress("fitting linear SVMs", passes * len(labels), "images") as advance,
        joblib.parallel_config("threading", n_jobs=-1),
    ):
        for rows in _blocks(len(labels), passes):
            mapped = values(features[rows]) @ nystroem.normalization_.T
            step = step or STEP / float((mapped**2).sum(axis=1).mean())
            _set(linear, counts, params.C, step * (1 - shown / (passes * len(labels))))
            linear.partial_fit(mapped, labels[rows].astype(np.int64), classes)
            advance(len(rows))
            shown += len(rows)
    return Pipeline([("nystroem", nystroem), ("linear", linear)])


def _set(linear: OneVsOneClassifier, counts: np.ndarray, C: float, step: float) -> None:  # noqa: N803
    """Set each pair's step and regularisation; counts: int [classes], of images.

    Before the first block there is one classifier, that of the first pair, which is copied then.
    """
    sizes = (first + second for first, second in combinations(counts, 2))
    ones = getattr(linear, "estimators_", [linear.estimator])
    for one, size in zip(ones, sizes, strict=False):
        one.set_params(alpha=1 / (C * size), eta0=step)


def _nystroem(features: np.ndarray, labels: np.ndarray, params: Svm, gamma: float) -> Nystroem:
    """Fitted on landmarks, which are training images at random, each class by its share."""
    count = min(params.approximation or 0, len(labels))
    landmarks = features[stratified(labels, count, SEED)]
    kinds = params.model_dump(include={"kernel", "degree", "coef0"})
    return Nystroem(**kinds, gamma=gamma, n_components=count, random_state=SEED).fit(landmarks)


def _blocks(count: int, passes: int) -> Iterator[np.ndarray]:
    """Positions of images, ascending in each block, shuffled anew in each pass."""
    random = np.random.default_rng(SEED)
    for order in (random.permutation(count) for _ in range(passes)):
        for rows in blocks(count, BLOCK):
            yield np.sort(order[rows])
