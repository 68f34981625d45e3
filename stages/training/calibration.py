"""Hold images out, and fit the one number that turns a model's decisions into probabilities."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from stages.data.splits import split
from stages.params import Calibration

RANGE = 1e-3, 1e3  # of temperatures


def hold_out(labels: np.ndarray, params: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images that train a trial model, and of those held out, at most a fifth."""
    return split(labels, min(params.held_out, max(len(labels) // 5, 1)), params.seed)


def fit_temperature(log_probabilities: Callable[[float], np.ndarray], labels: np.ndarray) -> float:
    """The temperature, 0.001 to 1000, at which the log loss of held-out images is least.

    log_probabilities: gives float [n, classes] at a temperature; labels: [n], of images that the
    model was not trained on. Source: Guo et al., On calibration of modern neural networks, ICML
    2017.
    """

    def loss(log_temperature: float) -> float:
        logs = log_probabilities(float(np.exp(log_temperature)))
        return -float(logs[np.arange(len(labels)), labels].mean())

    best = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-3})
    return round(float(np.exp(best.x)), 3)
