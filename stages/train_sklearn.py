"""Train the support vector machine.

Reads   data/processed/train.npz
Writes  models/sklearn/model.joblib     a scikit-learn Pipeline: pixels to float32, to 0–1, to SVC
Params  svm
"""

import time
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler
from sklearn.svm import SVC

from serving.fashion.contract import PIXEL_MAX, PIXELS
from serving.fashion.svm import KernelClassifier
from stages.atomic import replacing
from stages.dataset import PROCESSED, read_npz
from stages.errors import run
from stages.params import Svm, load_params

try:
    from sklearnex import svm as engine

    ENGINE = f"scikit-learn-intelex {version('scikit-learn-intelex')}"
except ImportError:
    from sklearn import svm as engine

    ENGINE = f"scikit-learn {version('scikit-learn')}"

MODEL = Path("models/sklearn/model.joblib")
CACHE_MB = 2000  # of kernel rows kept while fitting; changes the time, not the result
BATCH = 100  # images to check a saved model with
AGREEMENT = 0.98  # of labels: float32 and float64 may part where two classes are all but equal

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


def scaling() -> list[tuple[str, object]]:
    """The steps before the classifier: any numeric [n, 784], 0 to 255, to float32, 0 to 1.

    float32 whatever a request brings, so that integers, float32 and float64 get equal labels.
    """
    to_float32 = FunctionTransformer(np.asarray, kw_args={"dtype": np.float32})
    return [
        ("float32", to_float32),
        ("scale", MaxAbsScaler().fit(np.full((1, PIXELS), PIXEL_MAX, np.float32))),
    ]


def train(images: np.ndarray, labels: np.ndarray, params: Svm) -> Pipeline:
    """Fit on uint8 [n, 784] images with labels [n]; returns the pipeline from pixels to labels."""
    steps = scaling()
    classifier = engine.SVC(**params.model_dump(), cache_size=CACHE_MB)
    classifier.fit(Pipeline(steps).transform(images), labels.astype(np.int64))
    return Pipeline([*steps, ("svc", as_stock(classifier))])


def as_stock(fitted: SVC) -> SVC:
    """A fitted SVC of any engine as scikit-learn's own, which loads everywhere.

    That of scikit-learn-intelex also holds its support vectors five times and an address in
    memory, which makes each file of it different.
    """
    if type(fitted) is SVC:
        return fitted
    stock = SVC(**{name: getattr(fitted, name) for name in SVC().get_params()})
    for name in FITTED_PLAIN:
        setattr(stock, name, getattr(fitted, name))
    for name, dtype in FITTED.items():
        value = fitted.n_iter_ if name == "_num_iter" else getattr(fitted, name)
        setattr(stock, name, np.ascontiguousarray(value, dtype))
    stock._probA = stock._probB = np.empty(0)  # no probabilities
    stock._effective_probability = False
    return stock


def save(path: Path, model: Pipeline, batch: np.ndarray) -> None:
    """Write the model, reload it, and check its labels of a batch, uint8 [n, 784].

    Raises RuntimeError when the reloaded model labels an image differently, or when the labels
    that a server computes from it are not those of scikit-learn's own prediction.
    """
    with replacing(path) as part:
        joblib.dump(model, part)
        reloaded = joblib.load(part)
        served = KernelClassifier(reloaded).predict(batch)
        if not np.array_equal(served, KernelClassifier(model).predict(batch)):
            raise RuntimeError(f"{path}: reloaded, it labels images differently")
        if (served == reloaded.predict(batch)).mean() < AGREEMENT:
            raise RuntimeError(f"{path}: served, it labels images unlike scikit-learn")


def main() -> None:
    params, data = load_params().svm, read_npz(PROCESSED / "train.npz")
    print(f"fitting SVC with {ENGINE} on {len(data.labels):,} images", flush=True)
    start = time.monotonic()
    model = train(data.images, data.labels, params)
    vectors = model["svc"].n_support_.sum()
    print(f"fitted in {time.monotonic() - start:.0f} s: {vectors:,} support vectors", flush=True)
    save(MODEL, model, data.images[:BATCH])


if __name__ == "__main__":
    run(main)
