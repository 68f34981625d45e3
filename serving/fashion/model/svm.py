"""Decisions and probabilities of a fitted SVM of scikit-learn, by matrix products.

scikit-learn takes one image and one support vector at a time, in one thread. One product of all
images with all support vectors gives the same decisions, many times faster.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
from scipy.special import log_expit, log_softmax
from sklearn.metrics.pairwise import pairwise_kernels
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from .kernel import Rbf

Decisions = Callable[[np.ndarray], np.ndarray]


def decisions(model: SVC | Pipeline) -> Decisions:
    """The decision function of a fitted SVC, or of the pipeline that approximates one.

    It takes float32 [n, k] features and returns float64 [n, pairs], above 0 where the first class
    of a pair wins, in the order 01, 02 … 12 …, equal for an image in any batch. It needs n ×
    support vectors, or landmarks, × 4 bytes of memory.
    """
    return _of_nystroem(model) if isinstance(model, Pipeline) else _of_svc(model)


def _of_svc(svc: SVC) -> Decisions:
    """Source of the rule: Chang and Lin, LIBSVM, ACM TIST 2(3), 2011, section 7.

    Layout of the coefficients: scikit-learn, User Guide, 1.4.1.1 "Multi-class classification".
    """
    # _gamma: the number for gamma="scale" or "auto", which has no public name.
    kernel_values = kernel(svc, svc.support_vectors_, svc._gamma)
    # Of two classes, scikit-learn inverts the signs.
    sign = -1.0 if len(svc.classes_) == 2 else 1.0  # noqa: PLR2004
    coefficients = sign * svc.dual_coef_.astype(np.float64)
    intercepts = sign * svc.intercept_.astype(np.float64)
    vectors_of_class = [slice(*ends) for ends in pairwise([0, *np.cumsum(svc.n_support_)])]
    first, second = pairs(len(vectors_of_class))

    def decide(rows: np.ndarray) -> np.ndarray:
        values = kernel_values(rows)
        sums = [
            values[:, vectors].astype(np.float64) @ coefficients[:, vectors].T
            for vectors in vectors_of_class
        ]
        of_class = np.stack(sums, axis=1)
        return of_class[:, first, second - 1] + of_class[:, second, first] + intercepts

    return decide


def _of_nystroem(pipeline: Pipeline) -> Decisions:
    """Of Pipeline(Nystroem, OneVsOneClassifier of linear SVMs).

    The features are linear in the kernel's values and the decisions in the features, so one matrix
    [landmarks, pairs] maps the values to the decisions.
    """
    nystroem, linear = pipeline[0], pipeline[-1]
    kernel_values = kernel(nystroem, nystroem.components_, nystroem.gamma)
    # The classifier of a pair is above 0 where the second wins.
    weights = -np.concatenate([pair.coef_ for pair in linear.estimators_])
    coefficients = nystroem.normalization_.T.astype(np.float64) @ weights.T
    intercepts = -np.concatenate([pair.intercept_ for pair in linear.estimators_])
    return lambda rows: kernel_values(rows).astype(np.float64) @ coefficients + intercepts


def is_svm(model: object) -> bool:
    """Whether it is an SVC, or the pipeline that stages/training/nystroem.py makes."""
    steps = [*model.named_steps] if isinstance(model, Pipeline) else []
    return isinstance(model, SVC) or steps == ["nystroem", "linear"]


def kernel(params: object, vectors: np.ndarray, gamma: float) -> Decisions:
    """The function from rows, float32 [n, k], to kernel values, float32 [n, vectors].

    params: anything with scikit-learn's names: kernel, degree, coef0.
    """
    name, degree, coef0 = (getattr(params, key) for key in ("kernel", "degree", "coef0"))
    if name == "rbf":
        return Rbf(vectors, gamma)
    options = {"gamma": gamma, "degree": degree, "coef0": coef0, "filter_params": True}
    return partial(pairwise_kernels, Y=vectors.astype(np.float32), metric=name, **options)


@lru_cache
def pairs(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second of each pair, in the order 01, 02 … 12 …; int [pairs] each."""
    return np.triu_indices(classes, 1)


def pairwise_log_proba(decisions: np.ndarray, temperature: float) -> np.ndarray:
    """Log probability of each class from the decisions of all pairs; float64 [n, classes].

    decisions: [n, pairs], as above; temperature: > 0, divides them. The probability of a class is
    proportional to the product, over its pairs, of the logistic function of its decisions.

    Sources: Platt, Probabilistic outputs for support vector machines, 1999 (the logistic function);
    Wu, Lin and Weng, JMLR 5, 2004, compare ways to couple pairs; this one needs no iteration.
    """
    classes = round((1 + np.sqrt(1 + 8 * decisions.shape[1])) / 2)
    first, second = pairs(classes)
    logits = decisions.astype(np.float64) / temperature
    wins = np.zeros((len(logits), classes, classes))  # of the first over the second, as logarithms
    wins[:, first, second] = log_expit(logits)
    wins[:, second, first] = log_expit(-logits)
    return log_softmax(wins.sum(axis=2), axis=1)
