"""Train the support vector machine.

Reads   data/processed/train_labels.npy, train_features.npy, features.npz
Writes  models/sklearn      model.joblib, a scikit-learn SVC on features or the pipeline that
                            approximates it; features.npz; training.json, how it was trained and is
                            served
Params  svm, calibration, threads
"""

if not __package__:  # as an editor's run button starts it
    raise SystemExit("run it from the project's root: python -m stages.train_sklearn")

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from serving.fashion.model.svm import decisions, pairwise_log_proba
from stages.console import run
from stages.data.arrays import blocks, map_rows
from stages.data.processed import BLOCK, TRAIN_FEATURES, TRAIN_LABELS
from stages.data.splits import stratified
from stages.params import Calibration, Svm, load_params
from stages.training import nystroem
from stages.training.calibration import fit_temperature, hold_out
from stages.training.saved import by_scikit_learn, save_model
from stages.training.stock_svm import to_sklearn_svc
from stages.training.threads import fix_threads

# CACHE_MB, of kernel rows kept while fitting, changes the time, not the result; to
# scikit-learn-intelex a row is about as quick to compute as to fetch.
try:
    from sklearnex import svm as engine

    ENGINE, CACHE_MB = f"scikit-learn-intelex {version('scikit-learn-intelex')}", 200
except ImportError:
    from sklearn import svm as engine

    ENGINE, CACHE_MB = f"scikit-learn {version('scikit-learn')}", 2000

FOLDER, SERVED = Path("models/sklearn"), by_scikit_learn("fashion-sklearn")
BATCH = 100  # images to check a saved model with
# Images at most, to train the model that calibrates the final one. An exact one's temperature
# depends little on them, and its time on their square; an approximation that is fitted on few
# images for its landmarks is overconfident.
TRIAL, TRIAL_APPROXIMATION = 5_000, 60_000


def train(features: np.ndarray, labels: np.ndarray, params: Svm) -> SVC | Pipeline:
    """Fit on float32 [n, k] features with labels [n]; an approximation reads blocks of them."""
    if params.approximation:
        return nystroem.train(features, labels, params, resolve_gamma(features, params.gamma))
    named = params.model_dump(exclude={"approximation"})
    classifier = engine.SVC(**named, cache_size=CACHE_MB)
    return to_sklearn_svc(classifier.fit(features[:], labels.astype(np.int64)))


def resolve_gamma(features: np.ndarray, gamma: str | float) -> float:
    """The number that gamma, "scale" and "auto" too, is to an SVC of all features; reads blocks."""
    if not isinstance(gamma, str):
        return gamma
    if gamma == "auto":
        return 1 / features.shape[1]
    chunks = (features[rows].astype(float) for rows in blocks(len(features), BLOCK))
    size = len(features) * features.shape[1]
    mean, square = np.sum([(c.sum(), (c**2).sum()) for c in chunks], axis=0) / size
    return float(1 / (features.shape[1] * (square - mean**2)))


def engine_name(params: Svm) -> str:
    """The name and version of what fits."""
    return f"scikit-learn {version('scikit-learn')}" if params.approximation else ENGINE


def calibrate(
    features: np.ndarray, labels: np.ndarray, params: Svm, calibration: Calibration
) -> float:
    """The temperature of a trial model of a sample, fitted on held-out images."""
    rest, held_out = hold_out(labels, calibration)
    most = TRIAL_APPROXIMATION if params.approximation else TRIAL
    sample = rest[stratified(labels[rest], min(most, len(rest)), calibration.seed)]
    classes, first = np.unique(labels[rest], return_index=True)
    lacking = np.isin(classes, labels[sample], invert=True)  # rare ones, which get one image each
    sample = np.union1d(sample, rest[first[lacking]])
    trial = decisions(train(features[sample], labels[sample], params))
    decided = trial(features[held_out])
    return fit_temperature(lambda t: pairwise_log_proba(decided, t), labels[held_out])


def save(
    folder: Path, model: Any, temperature: float, params: Svm, rows: np.ndarray, **more: Any
) -> None:
    """Write what `package` takes; see save_model."""
    more |= {"temperature": temperature, "engine": engine_name(params)}
    save_model(folder, SERVED, model, params, rows, **more)


def main() -> None:
    params = load_params()
    fix_threads(params.threads)
    labels, features = map_rows(TRAIN_LABELS), map_rows(TRAIN_FEATURES)
    print(f"fitting an SVM with {engine_name(params.svm)} on {len(labels):,} images", flush=True)
    start = time.monotonic()
    temperature = calibrate(features, labels, params.svm, params.calibration)
    model = train(features, labels, params.svm)
    vectors = len(model[0].components_) if params.svm.approximation else len(model.support_)
    kind = "landmarks" if params.svm.approximation else "support vectors"
    print(f"fitted in {time.monotonic() - start:.0f} s: {vectors:,} {kind}", flush=True)
    save(FOLDER, model, temperature, params.svm, features[:BATCH])


if __name__ == "__main__":
    run(main)
