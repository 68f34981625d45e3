"""An SVM fitted on a GPU, pair by pair, is a stock one.  Run: pytest tests/test_gpu_svm.py

cuML itself needs a GPU; scikit-learn's own SVC of two classes, which cuML's converts to, stands in
for it here.
"""

import shutil
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.multiclass import OneVsOneClassifier
from sklearn.svm import SVC

from serving.fashion.model.svm import decisions
from stages import gpu_svm, train_sklearn
from stages.errors import StageError
from stages.params import Params, Svm
from stages.stock_svm import joined

SETTINGS = {"kernel": "rbf", "C": 2.0, "gamma": 0.05, "tol": 1e-6}


class Pair(SVC):
    """What gpu_svm asks of cuML's SVC."""

    def __init__(  # noqa: PLR0917
        self,
        C=1.0,  # noqa: N803
        kernel="rbf",
        degree=3,
        gamma="scale",
        coef0=0.0,
        tol=1e-3,
        output_type=None,
    ):
        super().__init__(C=C, kernel=kernel, degree=degree, gamma=gamma, coef0=coef0, tol=tol)
        self.output_type = output_type

    def as_sklearn(self) -> SVC:
        return self


def problem(classes: int) -> tuple[np.ndarray, np.ndarray]:
    features, labels = make_classification(
        400, 12, n_informative=8, n_classes=classes, class_sep=0.7, random_state=3
    )
    return features.astype(np.float32), (labels * 3 + 1).astype(np.uint8)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_pairs_joined_decide_and_look_as_an_svc_of_all_classes(classes: int):
    features, labels = problem(classes)
    whole = SVC(**SETTINGS).fit(features, labels)
    pairs = OneVsOneClassifier(SVC(**SETTINGS)).fit(features, labels).estimators_
    one = joined(pairs, features, labels, SETTINGS)
    assert type(one) is SVC
    assert set(vars(whole)) <= set(vars(one)) | {"_effective_probability"}
    assert np.array_equal(one.support_, whole.support_)
    assert np.array_equal(one.n_support_, whole.n_support_)
    for name in ("dual_coef_", "_dual_coef_", "intercept_", "_intercept_", "support_vectors_"):
        assert np.allclose(getattr(one, name), getattr(whole, name), atol=1e-3), name
    for decide in (decisions(one), one.decision_function):
        other = decisions(whole) if decide != one.decision_function else whole.decision_function
        assert np.allclose(decide(features), other(features), atol=1e-3)
    assert np.array_equal(one.predict(features), whole.predict(features))


@pytest.mark.parametrize("gamma", ["scale", 0.05])
def test_cuda_trains_all_pairs_by_the_width_of_all_images(
    params: Params, monkeypatch: pytest.MonkeyPatch, gamma: str | float
):
    module = ModuleType("cuml.svm")
    module.SVC = Pair  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuml", ModuleType("cuml"))
    monkeypatch.setitem(sys.modules, "cuml.svm", module)
    features, labels = problem(4)
    section = params.svm.model_copy(update={"device": "cuda", "gamma": gamma, "tol": 1e-6})
    on_gpu = train_sklearn.train(features, labels, section)
    here = train_sklearn.train(features, labels, section.model_copy(update={"device": "cpu"}))
    assert np.allclose(decisions(on_gpu)(features), decisions(here)(features), atol=1e-2)


@pytest.fixture
def cuda(params: Params) -> Svm:
    return params.svm.model_copy(update={"device": "cuda"})


def refusal(section: Svm) -> str:
    with pytest.raises(StageError) as error:
        gpu_svm.check_device(section)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_cpu_needs_nothing(params: Params):
    gpu_svm.check_device(params.svm)


def test_cuml_that_is_not_installed_is_one_line(cuda: Svm):
    if gpu_svm.find_spec("cuml"):
        pytest.skip("cuML is installed")
    assert refusal(cuda) == (
        "params.yaml: svm.device is cuda, but cuML is not installed; "
        "install it with: pip install -r requirements-gpu.txt, or use cpu"
    )


class NoDriverError(RuntimeError):
    """In place of CUDA's own, which has no name where there is no CUDA."""


def none() -> int:
    return 0


def without_driver() -> int:
    raise NoDriverError


@pytest.mark.parametrize("count", [none, without_driver])
def test_a_gpu_that_is_not_there_is_one_line(
    cuda: Svm, monkeypatch: pytest.MonkeyPatch, count: Callable[[], int]
):
    if shutil.which("nvidia-smi"):
        pytest.skip("a GPU is there")
    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=NoDriverError)
    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(runtime=runtime)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(gpu_svm, "find_spec", lambda _: object())
    assert "cuML finds no GPU; use cpu, or a machine with" in refusal(cuda)


def test_the_approximation_on_a_gpu_is_one_line(cuda: Svm):
    message = refusal(cuda.model_copy(update={"approximation": 2000}))
    assert "svm.approximation is 2000, which trains on the CPU" in message
