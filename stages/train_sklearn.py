"""Train the support vector machine.

Reads   data/processed/train_labels.npy, train_features.npy
Writes  models/sklearn/model.joblib         a scikit-learn SVC, on features
        models/sklearn/training.json        temperature, parameters, versions of libraries
Params  svm, calibration
"""

import time
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
from sklearn.svm import SVC

from serving.fashion.svm import PairwiseDecisions, couple
from stages.atomic import replacing
from stages.calibration import fit_temperature, held_out_size, write_training
from stages.dataset import read_features, read_train_labels
from stages.errors import run
from stages.params import Calibration, Svm, load_params
from stages.split import split, stratified

# CACHE_MB, of kernel rows kept while fitting, changes the time, not the result; to
# scikit-learn-intelex a row is about as quick to compute as to fetch.
try:
    from sklearnex import svm as engine

    ENGINE, CACHE_MB = f"scikit-learn-intelex {version('scikit-learn-intelex')}", 200
except ImportError:
    from sklearn import svm as engine

    ENGINE, CACHE_MB = f"scikit-learn {version('scikit-learn')}", 2000

FOLDER, MODEL = Path("models/sklearn"), "model.joblib"
LIBRARIES = ("numpy", "opencv-python-headless", "scikit-learn")  # that serving needs
BATCH = 100  # images to check a saved model with
TRIAL = 5_000  # images at most, to train the model that calibrates the final one

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


def train(features: np.ndarray, labels: np.ndarray, params: Svm) -> SVC:
    """Fit on float32 [n, k] features with labels [n]."""
    classifier = engine.SVC(**params.model_dump(), cache_size=CACHE_MB)
    return as_stock(classifier.fit(features, labels.astype(np.int64)))


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
    stock._probA = stock._probB = np.empty(0)  # no probabilities of libsvm's kind
    stock._effective_probability = False
    return stock


def calibrate(
    features: np.ndarray, labels: np.ndarray, params: Svm, calibration: Calibration
) -> float:
    """The temperature of a trial model, fitted on images that it has not seen.

    features: float32 [n, k]; labels: [n]. The trial trains on a sample, since the temperature
    depends little on its size, and its time on the square of it.
    """
    size = held_out_size(len(labels), calibration.held_out)
    rest, held_out = split(labels, size, calibration.seed)
    sample = rest[stratified(labels[rest], min(TRIAL, len(rest)), calibration.seed)]
    trial = PairwiseDecisions(train(features[sample], labels[sample], params))
    decisions = trial(features[held_out])
    return fit_temperature(lambda t: couple(decisions, t), labels[held_out])


def save(folder: Path, model: SVC, temperature: float, params: Svm, batch: np.ndarray) -> None:
    """Write the model and what goes with it, reload it, check its decisions on float32 [n, k].

    Raises RuntimeError when the reloaded model decides differently.
    """
    with replacing(folder / MODEL) as part:
        joblib.dump(model, part)
        reloaded = PairwiseDecisions(joblib.load(part))
        if not np.array_equal(reloaded(batch), PairwiseDecisions(model)(batch)):
            raise RuntimeError(f"{folder / MODEL}: reloaded, it decides differently")
    write_training(folder, temperature, ENGINE, params, LIBRARIES)


def main() -> None:
    params, labels = load_params(), read_train_labels()
    features = read_features()[:]
    print(f"fitting SVC with {ENGINE} on {len(labels):,} images", flush=True)
    start = time.monotonic()
    temperature = calibrate(features, labels, params.svm, params.calibration)
    model = train(features, labels, params.svm)
    vectors = model.n_support_.sum()
    print(f"fitted in {time.monotonic() - start:.0f} s: {vectors:,} support vectors", flush=True)
    save(FOLDER, model, temperature, params.svm, features[:BATCH])


if __name__ == "__main__":
    run(main)
