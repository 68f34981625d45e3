"""Fashion-MNIST's models as predictors: images to labels, probabilities and names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import CLASS_LABELS, CONFIDENCES, IMAGES, INPUT_NAME, LABELS, PIXELS, PROBABILITIES
from ..inference.predictor import InferRequest, Predictor, Results, TensorSpec
from .classifiers import Classifier
from .metrics import PredictionMetrics
from .pixels import read_images

DECIMALS = 6  # of a probability in the request log


class FashionPredictor(Predictor):
    """A classifier of images.

    class_names: by label; max_rows: images a request; metrics: count the predictions.
    """

    inputs = (TensorSpec(INPUT_NAME, "UINT8", (-1, PIXELS)),)

    def __init__(
        self,
        classifier: Classifier,
        class_names: Sequence[str],
        max_rows: int,
        metrics: PredictionMetrics,
    ) -> None:
        self._classifier, self._names = classifier, np.array(class_names)
        self.max_rows, self._metrics = max_rows, metrics
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
        self._metrics.add(results[LABELS], results[CONFIDENCES])

    def log_fields(self, results: Results, with_inputs: bool) -> dict[str, Any]:
        """The fields of `LoggedImages`."""
        fields = {
            "images": len(results[LABELS]),
            "labels": results[LABELS].tolist(),
            "probabilities": [round(p, DECIMALS) for p in results[CONFIDENCES].tolist()],
        }
        return fields | ({"pixels": results[IMAGES].tobytes()} if with_inputs else {})
