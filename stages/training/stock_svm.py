"""A scikit-learn SVC made of what scikit-learn-intelex fitted."""

import numpy as np
from sklearn.svm import SVC

# What scikit-learn's SVC sets when it is fitted, with the types that its prediction takes. Those
# that begin with _ are private: scikit-learn has no public way to make an SVC without fitting it.
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


def to_sklearn_svc(fitted: SVC) -> SVC:
    """A fitted SVC of scikit-learn-intelex as one of scikit-learn, which loads everywhere.

    The former also holds its support vectors five times and an address in memory, which makes each
    file of it different. One of scikit-learn is returned as it is.
    """
    if type(fitted) is SVC:
        return fitted
    stock = SVC(**{name: getattr(fitted, name) for name in SVC().get_params()})
    for name in FITTED_PLAIN:
        setattr(stock, name, getattr(fitted, name))
    for name, dtype in FITTED.items():
        value = getattr(fitted, "n_iter_" if name == "_num_iter" else name)
        setattr(stock, name, np.ascontiguousarray(value, dtype))
    stock._probA = stock._probB = np.empty(0)  # no probabilities of libsvm's kind
    stock._effective_probability = False
    return stock
