"""Metrics for Prometheus beside MLServer's own: of requests, images and models."""

from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import ClassVar

import numpy as np
from prometheus_client import Counter, Gauge, Histogram

from ..contract import CONFIDENCES, LABELS
from .batching import Batcher, Results
from .exchange import Exchange
from .limits import IN_HAND

OF = ["model", "version"]
OK, NO_MODEL = "ok", ("", "")  # the labels of a request for a model that is not there
REQUESTS = Counter("fashion_requests", "Requests: ok, or the status of HTTP.", [*OF, "outcome"])
SECONDS = Histogram(
    "fashion_request_seconds",
    "From a whole request to its response.",
    OF,
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
PREDICTED = Counter("fashion_images", "Images by predicted class.", [*OF, "class"])
BATCH = Histogram(
    "fashion_batch_images",
    "Images that are computed together.",
    OF,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
)
READY = Gauge("fashion_model_ready", "1 for a model that is served, 0 for one that is not.", OF)
WAITING = Gauge("fashion_requests_waiting", "Requests that wait for a model.", OF)
BYTES = Gauge("fashion_body_bytes_in_hand", "Bytes of requests that are read or computed.")
BYTES.set_function(lambda: IN_HAND.bytes)
LOST = Counter("fashion_request_log_lost_lines", "Lines that the request log could not write.")
CONFIDENCE = Histogram(
    "fashion_confidence",
    "Probability of an image's class.",
    OF,
    buckets=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
)


def observe_all(histogram: Histogram, values: np.ndarray) -> None:
    """What observe does with each value: that takes 10 ms for 10,000. values: float [n]."""
    places = np.searchsorted(histogram._upper_bounds, values)
    for bucket, count in zip(histogram._buckets, np.bincount(places).tolist(), strict=False):
        bucket.inc(count)
    histogram._sum.inc(float(values.sum()))


class ModelMetrics:
    """Of a packaged model. class_names: by label."""

    _loaded: ClassVar[dict[tuple[str, str], "ModelMetrics"]] = {}

    def __init__(self, name: str, version: str, class_names: Iterable[str]) -> None:
        self._model = name, version
        self._predicted = [PREDICTED.labels(name, version, text) for text in class_names]
        self._batch = BATCH.labels(name, version)
        self._confidence = CONFIDENCE.labels(name, version)

    def begin(self, batcher: Batcher | None) -> None:
        """Say from now on whether the model is served, and how many requests wait for it."""
        self._loaded[self._model] = self
        READY.labels(*self._model).set(batcher is not None)
        if batcher:
            WAITING.labels(*self._model).set_function(lambda: batcher.waiting)

    def add(self, results: Results) -> None:
        """Count the images of a batch."""
        counts = np.bincount(results[LABELS]).tolist()
        for predicted, count in zip(self._predicted, counts, strict=False):
            predicted.inc(count)
        self._batch.observe(len(results[LABELS]))
        observe_all(self._confidence, results[CONFIDENCES])

    def end(self) -> None:
        """Say nothing more of the model, unless it has been loaded again meanwhile."""
        if self._loaded.get(self._model) is self:
            del self._loaded[self._model]
            for gauge in (READY, WAITING):
                gauge.remove(*self._model)


def add_request(exchange: Exchange) -> None:
    """Count a request, at its end."""
    served = exchange.served
    model = (served.name, served.version) if served else NO_MODEL
    requests, seconds = _of(*model, exchange.status)
    requests.inc()
    seconds.observe(exchange.seconds)


@cache
def _of(name: str, version: str, status: int) -> tuple[Counter, Histogram]:
    outcome = OK if status == HTTPStatus.OK else str(status)
    return REQUESTS.labels(name, version, outcome), SECONDS.labels(name, version)
