"""From raw pixels to labels and probabilities, in a server and without one, from the same files.

contract.py names the files of a model's folder.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

from ..contract import LABELS, PROBABILITIES, TRAINING_FILE
from .features import ROWS_PER_THREAD, THREADS
from .inputs import read_inputs
from .svm import decisions, is_svm, pairwise_log_proba
from .trees import SmallBatchTrees

# Images are divided among threads, each of which computes all steps for its block. Threads of the
# libraries, which would divide every step, would wait for each other.
threadpool_limits(1)
POOL = ThreadPoolExecutor(THREADS)
SMALL_BATCH = 32  # images, up to which array lookups are faster than XGBoost
TINY = 1e-12  # instead of a probability of 0, which has no logarithm


class Classifier:
    """Classifies images by a fitted model. classes: int64 [classes], by column.

    folder: holds the model's files; rows_per_thread: images that a thread takes at once, of which
    more than ROWS_PER_THREAD would be shared out among threads again. Raises ValueError for a model
    without probabilities.
    """

    def __init__(self, model: Any, folder: Path, rows_per_thread: int) -> None:
        training = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
        self._inputs = read_inputs(folder)
        self._log_proba = log_proba_of(model, training["temperature"])
        self._rows_per_thread = min(rows_per_thread, ROWS_PER_THREAD)
        self.classes = np.asarray(model.classes_, np.int64)

    def classify(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Labels, int64 [n], the most probable class each, and probabilities, float64 [n, classes].

        images: uint8 [n, 784].
        """
        count = -(-len(images) // self._rows_per_thread)
        if count > 1:
            blocks = np.array_split(images, count)
            logs = np.concatenate(list(POOL.map(self._log_proba_of_images, blocks)))
        else:
            logs = self._log_proba_of_images(images)
        return {LABELS: self.classes[logs.argmax(axis=1)], PROBABILITIES: np.exp(logs)}

    def _log_proba_of_images(self, images: np.ndarray) -> np.ndarray:
        return self._log_proba(self._inputs(images))


def log_proba_of(model: Any, temperature: float) -> Callable[[np.ndarray], np.ndarray]:
    """The function from inputs, [n, k], to log probabilities, float64 [n, classes], of a model.

    model: any fitted classifier with predict_proba, or an SVM; temperature: > 0, divides logits.
    """
    if is_svm(model):
        decide = decisions(model)
        return lambda inputs: pairwise_log_proba(decide(inputs), temperature)
    if isinstance(model, XGBClassifier):
        model.set_params(n_jobs=1)
        if model.objective == "multi:softprob":
            margins = margins_of(model)
            return lambda inputs: log_softmax(
                margins(inputs).astype(np.float64) / temperature, axis=1
            )
    if not hasattr(model, "predict_proba"):
        raise ValueError(f"expected a classifier with predict_proba, got {type(model).__name__}")

    def log_proba(inputs: np.ndarray) -> np.ndarray:
        probabilities = model.predict_proba(inputs.astype(np.float64))
        logs = np.log(np.maximum(probabilities.astype(np.float64), TINY))
        return log_softmax(logs / temperature, axis=1)

    return log_proba


def margins_of(model: XGBClassifier) -> Callable[[np.ndarray], np.ndarray]:
    """The function from inputs, [n, k], to margins, float32 [n, classes], of boosted trees.

    model: of three classes or more, fitted with the objective multi:softprob.
    """
    small_batch, features = None, model.n_features_in_
    booster = model.get_booster()
    best = booster.attr("best_iteration")  # of one that stopped early, after which none count
    with suppress(ValueError):  # others, and trees that are too deep, are left to XGBoost
        small_batch = SmallBatchTrees(booster[: int(best) + 1] if best else booster)

    def margins(inputs: np.ndarray) -> np.ndarray:
        inputs = inputs[:, :features]
        if small_batch and len(inputs) <= SMALL_BATCH:
            return small_batch(inputs)
        return model.predict(inputs, output_margin=True)

    return margins


def load_classifier(path: Path, rows_per_thread: int = ROWS_PER_THREAD) -> Classifier:
    """Load a model from its file, .joblib or XGBoost's, and the other files of its folder."""
    if path.suffix == ".joblib":
        model = joblib.load(path)
    else:
        model = XGBClassifier()
        model.load_model(path)
    return Classifier(model, path.parent, rows_per_thread)
