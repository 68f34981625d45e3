"""From raw pixels to labels and probabilities, in a server and without one, from the same files.

What lies beside a model's own file is named in contract.py.
"""

import json
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from scipy.special import log_softmax
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

from ..contract import LABELS, PROBABILITIES, TRAINING_FILE
from .features import ROWS_PER_THREAD, THREADS
from .inputs import read_inputs
from .svm import decisions, is_approximation, pairwise_log_proba
from .trees import SmallBatchTrees

# Images are shared out among threads, each of which computes all that its share needs. The threads
# of the libraries, which would divide every step of it, wait for each other instead.
threadpool_limits(1)
POOL = ThreadPoolExecutor(THREADS)
SMALL_BATCH = 32  # images, up to which array lookups are faster than XGBoost
TINY = 1e-12  # instead of a probability of 0, which has no logarithm


class Classifier(ABC):
    """What all models share. classes: int64 [classes], by column.

    folder: holds the model's files; rows_per_thread: images that a thread takes at once, of which
    more than ROWS_PER_THREAD would be shared out among threads again.
    """

    def __init__(
        self,
        model: Any,
        folder: Path,
        rows_per_thread: int = ROWS_PER_THREAD,
    ) -> None:
        self._rows_per_thread = min(rows_per_thread, ROWS_PER_THREAD)
        self.classes = np.asarray(model.classes_, np.int64)
        self._model, self._inputs = model, read_inputs(folder)
        training = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
        self._temperature: float = training["temperature"]

    def classify(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Labels, int64 [n], the most probable class each, and probabilities, float64 [n, classes].

        images: uint8 [n, 784].
        """
        count = -(-len(images) // self._rows_per_thread)
        if count > 1:
            parts = np.array_split(images, count)
            logs = np.concatenate(list(POOL.map(self._log_proba_of_images, parts)))
        else:
            logs = self._log_proba_of_images(images)
        return {LABELS: self.classes[logs.argmax(axis=1)], PROBABILITIES: np.exp(logs)}

    def _log_proba_of_images(self, images: np.ndarray) -> np.ndarray:
        return self._log_proba(self._inputs(images))

    @abstractmethod
    def _log_proba(self, inputs: np.ndarray) -> np.ndarray:
        """Float64 [n, classes], of the model's inputs, [n, k]."""


class ProbabilityClassifier(Classifier):
    """Any fitted classifier with predict_proba."""

    def _log_proba(self, inputs: np.ndarray) -> np.ndarray:
        probabilities = self._model.predict_proba(inputs.astype(np.float64))
        logs = np.log(np.maximum(probabilities.astype(np.float64), TINY))
        return log_softmax(logs / self._temperature, axis=1)


class SvmClassifier(Classifier):
    """A fitted SVC, or the pipeline that approximates one."""

    def __init__(
        self, model: SVC | Pipeline, folder: Path, rows_per_thread: int = ROWS_PER_THREAD
    ) -> None:
        super().__init__(model, folder, rows_per_thread)
        self._decide = decisions(model)

    def _log_proba(self, inputs: np.ndarray) -> np.ndarray:
        return pairwise_log_proba(self._decide(inputs), self._temperature)


class TreesClassifier(Classifier):
    """A fitted XGBClassifier of three classes or more, whose objective is multi:softprob."""

    def __init__(
        self, model: XGBClassifier, folder: Path, rows_per_thread: int = ROWS_PER_THREAD
    ) -> None:
        super().__init__(model, folder, rows_per_thread)
        self._small_batch = None
        booster = model.get_booster()
        best = booster.attr("best_iteration")  # of one that stopped early, after which none count
        with suppress(ValueError):  # others, and trees that are too deep, are left to XGBoost
            self._small_batch = SmallBatchTrees(booster[: int(best) + 1] if best else booster)

    def _log_proba(self, inputs: np.ndarray) -> np.ndarray:
        seen = inputs[:, : self._model.n_features_in_]
        if self._small_batch and len(seen) <= SMALL_BATCH:
            margins = self._small_batch(seen)
        else:
            margins = self._model.predict(seen, output_margin=True)
        return log_softmax(margins.astype(np.float64) / self._temperature, axis=1)


def classifier_of(model: Any, folder: Path, rows_per_thread: int = ROWS_PER_THREAD) -> Classifier:
    """What classifies images by a fitted model: the fastest that there is for what it holds.

    folder, rows_per_thread: see Classifier. Raises ValueError for a model that has no classes or
    no probabilities.
    """
    kind: type[Classifier] = ProbabilityClassifier
    if isinstance(model, XGBClassifier):
        model.set_params(n_jobs=1)
        if model.objective == "multi:softprob":
            kind = TreesClassifier
    elif isinstance(model, SVC) or is_approximation(model):
        kind = SvmClassifier
    elif not hasattr(model, "predict_proba"):
        raise ValueError(f"expected a classifier with predict_proba, got {type(model).__name__}")
    return kind(model, folder, rows_per_thread)


def load_classifier(path: Path) -> Classifier:
    """Load a model from its file, .joblib or XGBoost's, and what lies beside it."""
    if path.suffix == ".joblib":
        return classifier_of(joblib.load(path), path.parent)
    model = XGBClassifier()
    model.load_model(path)
    return classifier_of(model, path.parent)
