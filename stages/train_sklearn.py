"""Train the support vector machine.

Reads   data/processed/train.npz
Writes  models/sklearn/model.joblib     a scikit-learn Pipeline: pixels to float32, to 0–1, to SVC
Params  svm.*
"""

import time
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler

from serving.fashion.contract import PIXEL_MAX, PIXELS
from stages.atomic import replacing
from stages.dataset import PROCESSED, read_npz
from stages.errors import run
from stages.params import Svm, load_params

try:
    from sklearnex.svm import SVC

    ENGINE = f"scikit-learn-intelex {version('scikit-learn-intelex')}"
except ImportError:
    from sklearn.svm import SVC

    ENGINE = f"scikit-learn {version('scikit-learn')}"

MODEL = Path("models/sklearn/model.joblib")
BATCH = 100  # images to check a saved model with
CACHE_MB = 2000  # of kernel rows kept while fitting; changes the time, not the result


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
    classifier = SVC(**params.model_dump(), cache_size=CACHE_MB)
    classifier.fit(Pipeline(steps).transform(images), labels.astype(np.int64))
    return Pipeline([*steps, ("svc", classifier)])


def save(path: Path, model: Pipeline, batch: np.ndarray) -> None:
    """Write the model, reload it, and check that both label a batch, uint8 [n, 784], alike."""
    with replacing(path) as part:
        joblib.dump(model, part)
        if not np.array_equal(joblib.load(part).predict(batch), model.predict(batch)):
            raise RuntimeError(f"{path}: reloaded, it labels images differently")


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
