"""From raw pixels to labels and probabilities, in a server and without one, from the same files.

What lies beside a model's own file, as `package` puts it there, is named in contract.py.
"""

import json
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import joblib
import numpy as np
from scipy.special import log_softmax
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier

from .contract import FEATURES_FILE, LABELS, PROBABILITIES, TRAINING_FILE
from .features import CHUNK, THREADS, FeatureMap, checked, read_features
from .forest import Forest
from .svm import couple, decisions

# Images are shared out among threads, each of which computes all that its share needs. The threads
# of the libraries, which would divide every step of it, wait for each other instead.
threadpool_limits(1)
POOL = ThreadPoolExecutor(THREADS)
FEW = 32  # images, up to which array lookups are faster than XGBoost


class Classifier(ABC):
    """What both models share. classes: int64 [classes], by column.

    folder: holds the model's files; chunk_rows: images that a thread takes at once.
    """

    def __init__(
        self, model: SVC | Pipeline | XGBClassifier, folder: Path, chunk_rows: int = CHUNK
    ) -> None:
        self._chunk_rows = chunk_rows
        self.classes = np.asarray(model.classes_, np.int64)
        self._features = FeatureMap(read_features(folder / FEATURES_FILE))
        training = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
        self._temperature: float = training["temperature"]

    def answer(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Labels, int64 [n], the most probable class each, and probabilities, float64 [n, classes].

        images: any numbers [n, 784], 0 to 255. Raises PixelError for others.
        """
        images = checked(images)
        count = -(-len(images) // self._chunk_rows)
        if count > 1:
            logs = np.concatenate(list(POOL.map(self._logs, np.array_split(images, count))))
        else:
            logs = self._logs(images)
        return {LABELS: self.classes[logs.argmax(axis=1)], PROBABILITIES: np.exp(logs)}

    def _logs(self, images: np.ndarray) -> np.ndarray:
        return self._log_probabilities(self._features(images))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The labels of an answer."""
        return self.answer(images)[LABELS]

    def predict_proba(self, images: np.ndarray) -> np.ndarray:
        """The probabilities of an answer."""
        return self.answer(images)[PROBABILITIES]

    @abstractmethod
    def _log_probabilities(self, features: np.ndarray) -> np.ndarray:
        """Float64 [n, classes], of float32 [n, k] features."""


class SvmClassifier(Classifier):
    """A fitted SVC, or the pipeline that approximates one."""

    def __init__(self, model: SVC | Pipeline, folder: Path, chunk_rows: int = CHUNK) -> None:
        super().__init__(model, folder, chunk_rows)
        self._decide = decisions(model)

    def _log_probabilities(self, features: np.ndarray) -> np.ndarray:
        return couple(self._decide(features), self._temperature)


class TreesClassifier(Classifier):
    """A fitted XGBClassifier."""

    def __init__(self, model: XGBClassifier, folder: Path, chunk_rows: int = CHUNK) -> None:
        super().__init__(model, folder, chunk_rows)
        self._model = model.set_params(n_jobs=1)
        self._of_few = None
        with suppress(ValueError):  # trees that are too deep are left to XGBoost
            self._of_few = Forest(model.get_booster())

    def _log_probabilities(self, features: np.ndarray) -> np.ndarray:
        seen = features[:, : self._model.n_features_in_]
        if self._of_few and len(seen) <= FEW:
            margins = self._of_few(seen)
        else:
            margins = self._model.predict(seen, output_margin=True)
        return log_softmax(margins.astype(np.float64) / self._temperature, axis=1)


def load_classifier(path: Path) -> Classifier:
    """Load a model from its file, model.joblib or model.json, and what lies beside it."""
    if path.suffix == ".joblib":
        return SvmClassifier(joblib.load(path), path.parent)
    model = XGBClassifier()
    model.load_model(path)
    return TreesClassifier(model, path.parent)
