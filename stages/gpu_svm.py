"""Fit the SVM on a GPU, by cuML, one for each pair of classes."""

from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.multiclass import OneVsOneClassifier
from sklearn.svm import SVC

from stages.errors import StageError
from stages.params import Svm
from stages.stock_svm import joined

WANTED = "params.yaml: svm.device is cuda, but"


def check_device(params: Svm) -> None:
    """Raise StageError when the SVM cannot be fitted where it should be."""
    if params.device == "cpu":
        return
    if params.approximation:
        raise StageError(
            f"{WANTED} svm.approximation is {params.approximation}, which trains on the CPU; "
            "use cpu, or approximation null"
        )
    if not find_spec("cuml"):
        raise StageError(
            f"{WANTED} cuML is not installed; "
            "install it with: pip install -r requirements-gpu.txt, or use cpu"
        )
    import cupy  # noqa: PLC0415, brought by cuML

    try:
        found = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:  # no driver
        found = 0
    if not found:
        raise StageError(
            f"{WANTED} cuML finds no GPU; use cpu, or a machine with an NVIDIA GPU and its driver"
        )


def train(features: np.ndarray, labels: np.ndarray, parameters: dict[str, Any]) -> SVC:
    """Fit on float32 [n, k] features with labels [n]; parameters: of SVC, gamma as a number.

    cuML converts none of its SVCs to scikit-learn's but those of two classes.
    """
    from cuml.svm import SVC as CumlSVC  # noqa: PLC0415, N811, where there is a GPU only

    binary = CumlSVC(**parameters, output_type="numpy")
    pairs = OneVsOneClassifier(binary).fit(features, labels.astype(np.int64))
    return joined([one.as_sklearn() for one in pairs.estimators_], features, labels, parameters)


def engine() -> str:
    """Its name and version."""
    return f"cuML {version('cuml-cu12')}"
