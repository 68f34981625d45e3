"""Fashion-MNIST's models as predictors: images to labels, probabilities and names."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from prometheus_client import Counter, Histogram

from ..contract import CLASS_LABELS, CONFIDENCES, IMAGES, INPUT_NAME, LABELS, PIXELS, PROBABILITIES
from ..inference.messages import InferRequest
from ..inference.predictor import Predictor, Results
from ..inference.tensors import TensorSpec
from .classifiers import Classifier
from .pixels import read_images

DECIMALS = 6  # of a probability in the request log
MODEL_LABELS = ["model", "version"]
PREDICTED = Counter("fashion_images", "Images by predicted class.", [*MODEL_LABELS, "class"])
CONFIDENCE = Histogram(
    "fashion_confidence",
    "Probability of an image's class.",
    MODEL_LABELS,
    buckets=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
)


class FashionPredictor(Predictor):
    """A classifier of images.

    class_names: by label; max_rows: images a request; name, version: of the model, for the metrics.
    """

    inputs = (TensorSpec(INPUT_NAME, "UINT8", (-1, PIXELS)),)

    def __init__(
        self,
        classifier: Classifier,
        class_names: Sequence[str],
        max_rows: int,
        name: str,
        version: str,
    ) -> None:
        self._classifier, self._names = classifier, np.array(class_names)
        self.max_rows = max_rows
        self._predicted = [PREDICTED.labels(name, version, text) for text in class_names]
        self._confidence = CONFIDENCE.labels(name, version)
        self.outputs = (
            TensorSpec(LABELS, "INT64", (-1,)),
            TensorSpec(PROBABILITIES, "FP64", (-1, len(class_names))),
            TensorSpec(CLASS_LABELS, "BYTES", (-1,)),
            TensorSpec(IMAGES, "UINT8", (-1, PIXELS)),
        )

    def decode(self, request: InferRequest) -> np.ndarray:
        """Images, uint8 [n, 784]. Raises RequestError."""
        return read_images(request, self.max_rows)

    def predict(self, rows: np.ndarray) -> Results:
        """All outputs of images, uint8 [n, 784], and the probabilities of the labels."""
        results = self._classifier.classify(rows)
        return results | {
            CLASS_LABELS: self._names[results[LABELS]],
            IMAGES: rows,
            CONFIDENCES: results[PROBABILITIES].max(axis=1),
        }

    def observe(self, results: Results) -> None:
        """Count the images by class, and the probabilities."""
        counts = np.bincount(results[LABELS]).tolist()
        for predicted, count in zip(self._predicted, counts, strict=False):
            predicted.inc(count)
        observe_all(self._confidence, results[CONFIDENCES])

    def log_fields(self, results: Results, with_inputs: bool) -> dict[str, Any]:
        """The fields of `LoggedImages`."""
        fields = {
            "images": len(results[LABELS]),
            "labels": results[LABELS].tolist(),
            "probabilities": [round(p, DECIMALS) for p in results[CONFIDENCES].tolist()],
        }
        return fields | ({"pixels": results[IMAGES].tobytes()} if with_inputs else {})


def observe_all(histogram: Histogram, values: np.ndarray) -> None:
    """As `observe` with each value, which takes 10 ms for 10,000. values: float [n]."""
    indices = np.searchsorted(histogram._upper_bounds, values)
    for bucket, count in zip(histogram._buckets, np.bincount(indices).tolist(), strict=False):
        bucket.inc(count)
    histogram._sum.inc(float(values.sum()))
