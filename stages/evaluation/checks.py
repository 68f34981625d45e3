"""Checks that served predictions match offline ones."""

from pathlib import Path

import joblib
import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from serving.client import Outputs
from serving.fashion.contract import LABELS, PROBABILITIES
from serving.fashion.model.classifiers import load_classifier
from serving.fashion.model.inputs import read_inputs
from serving.fashion.model.svm import decisions, is_svm
from serving.fashion.packaged import Model
from stages.console import StageError

LIBRARY_SAMPLE, LIBRARY_TOLERANCE = 200, 1e-3  # images; of a decision, where 1 is the margin
TOLERANCE = 1e-11  # of a probability; the SVM's sums are rounded in another order


def check_model(model: Model, images: np.ndarray, served: list[Outputs]) -> None:
    """Raise StageError where a model's outputs, over each protocol, are not those of its files."""
    offline = load_classifier(model.path).classify(images)
    for outputs in served:
        check_equal(model, outputs, offline)
    if model.path.suffix == ".joblib":
        check_library(model.path, images)


def check_equal(model: Model, served: Outputs, offline: Outputs) -> None:
    """Raise StageError when a served label or probability differs from the offline one."""
    labels, expected = served[LABELS], offline[LABELS]
    differing = np.flatnonzero(labels != expected)
    if len(differing):
        first = differing[0]
        raise StageError(
            f"{model.name}: {len(differing):,} of {len(labels):,} served labels differ from "
            f"the offline ones, first image {first:,}: served {labels[first]}, "
            f"offline {expected[first]}"
        )
    off = np.abs(served[PROBABILITIES] - offline[PROBABILITIES]).max()
    if not off <= TOLERANCE:
        raise StageError(
            f"{model.name}: a served probability is {off:.2g} off the offline one, "
            f"expected at most {TOLERANCE:g}"
        )


def check_library(path: Path, images: np.ndarray) -> None:
    """Raise StageError when an SVM's decisions are not those of scikit-learn.

    It is slow, computing in float64, so a sample is compared, spread over the images.
    """
    model = joblib.load(path)
    if not is_svm(model):
        return
    sample = images[:: max(1, len(images) // LIBRARY_SAMPLE)]
    features = read_inputs(path.parent)(sample)
    off = np.abs(_library_decisions(model, features) - decisions(model)(features)).max()
    if off > LIBRARY_TOLERANCE:
        raise StageError(
            f"{path}: a decision is {off:.2g} off scikit-learn's, "
            f"expected at most {LIBRARY_TOLERANCE:g}"
        )


def _library_decisions(model: SVC | Pipeline, features: np.ndarray) -> np.ndarray:
    """scikit-learn's decisions, in float64, of all pairs: [n, pairs], above 0 for the first."""
    exact = features.astype(np.float64)
    if isinstance(model, Pipeline):
        mapped = model[0].transform(exact)
        return -np.stack([pair.decision_function(mapped) for pair in model[-1].estimators_], 1)
    values = model.set_params(decision_function_shape="ovo").decision_function(exact)
    # Of two classes, it has one column, above 0 for the second.
    return -values[:, None] if values.ndim == 1 else values
