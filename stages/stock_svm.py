"""An SVC as scikit-learn's own fits it, out of what other engines fitted."""

from collections.abc import Sequence
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.svm import SVC

# What an SVC is once it is fitted, with the types that scikit-learn's own prediction takes.
FITTED = {
    "support_": np.int32,
    "support_vectors_": np.float64,
    "_n_support": np.int32,
    "n_iter_": np.int32,
    "_num_iter": np.int32,
    "dual_coef_": np.float64,
    "_dual_coef_": np.float64,
    "intercept_": np.float64,
    "_intercept_": np.float64,
    "class_weight_": np.float64,
    "classes_": np.int64,
}
FITTED_PLAIN = ("fit_status_", "n_features_in_", "shape_fit_", "_gamma", "_sparse")


def as_stock(fitted: SVC) -> SVC:
    """A fitted SVC of any engine as scikit-learn's own, which loads everywhere.

    That of scikit-learn-intelex also holds its support vectors five times and an address in
    memory, which makes each file of it different.
    """
    if type(fitted) is SVC:
        return fitted
    return _filled({name: getattr(fitted, name) for name in SVC().get_params()}, fitted)


def joined(
    fitted: Sequence[SVC], features: np.ndarray, labels: np.ndarray, parameters: dict[str, Any]
) -> SVC:
    """One SVC of all classes out of one of each pair, in the order 01, 02 … 12 …

    fitted: each by scikit-learn's conventions for two classes, on the images of its pair alone;
    features: float32 [n, k]; labels: [n], of all images; parameters: of each, gamma as a number.

    Source of the layout: scikit-learn, User Guide, 1.4.1.1 "Multi-class classification". Of two
    classes, scikit-learn turns the signs of dual_coef_ and intercept_, not of _dual_coef_ and
    _intercept_, which are as for more classes.
    """
    classes = np.unique(labels)
    duals = np.zeros((len(classes) - 1, len(labels)))
    for (i, j), one in zip(combinations(range(len(classes)), 2), fitted, strict=True):
        used = np.flatnonzero(np.isin(labels, classes[[i, j]]))[one.support_]
        is_second = labels[used] == classes[j]
        duals[j - 1, used[~is_second]] = one._dual_coef_[0, ~is_second]
        duals[i, used[is_second]] = one._dual_coef_[0, is_second]
    used = np.flatnonzero(duals.any(axis=0))
    support = used[np.argsort(labels[used], kind="stable")]
    dual, intercept = duals[:, support], np.concatenate([one._intercept_ for one in fitted])
    iterations = np.concatenate([one.n_iter_ for one in fitted])
    sign = -1 if len(classes) == 2 else 1  # noqa: PLR2004
    attributes = SimpleNamespace(
        support_=support,
        support_vectors_=features[support],
        _n_support=[np.count_nonzero(labels[support] == label) for label in classes],
        n_iter_=iterations,
        dual_coef_=sign * dual,
        _dual_coef_=dual,
        intercept_=sign * intercept,
        _intercept_=intercept,
        class_weight_=np.ones(len(classes)),
        classes_=classes,
        fit_status_=0,
        n_features_in_=features.shape[1],
        shape_fit_=features.shape,
        _gamma=parameters["gamma"],
        _sparse=False,
    )
    return _filled(parameters, attributes)


def _filled(parameters: dict[str, Any], fitted: object) -> SVC:
    stock = SVC(**parameters)
    for name in FITTED_PLAIN:
        setattr(stock, name, getattr(fitted, name))
    for name, dtype in FITTED.items():
        value = getattr(fitted, "n_iter_" if name == "_num_iter" else name)
        setattr(stock, name, np.ascontiguousarray(value, dtype))
    stock._probA = stock._probB = np.empty(0)  # no probabilities of libsvm's kind
    stock._effective_probability = False
    return stock
