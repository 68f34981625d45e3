"""Metrics for Prometheus beside MLServer's own: of requests, images and models."""

import threading
from collections.abc import Iterable, Iterator
from functools import cache
from http import HTTPStatus
from typing import ClassVar

import numpy as np
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .batching import Batcher, Results
from .contract import CONFIDENCES, LABELS
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
CONFIDENCE_EDGES = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0])


class ConfidenceHistogram(Collector):
    """Probabilities of the predicted classes, counted many at a time.

    prometheus_client's own histogram takes them one by one: 10 ms for 10,000 images.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], np.ndarray] = {}
        self._sums: dict[tuple[str, str], float] = {}
        REGISTRY.register(self)

    def add(self, model: tuple[str, str], confidences: np.ndarray) -> None:
        """Count the images of a batch. model: name, version."""
        places = np.searchsorted(CONFIDENCE_EDGES, confidences)
        counts = np.bincount(places, minlength=len(CONFIDENCE_EDGES) + 1)
        with self._lock:
            self._counts[model] = self._counts.get(model, 0) + counts
            self._sums[model] = self._sums.get(model, 0.0) + float(confidences.sum())

    def describe(self) -> Iterable[Metric]:
        """Nothing yet: the name alone."""
        yield HistogramMetricFamily("fashion_confidence", "Probability of an image's class.")

    def collect(self) -> Iterator[Metric]:
        """The buckets of each model."""
        family = HistogramMetricFamily(
            "fashion_confidence", "Probability of an image's class.", labels=OF
        )
        with self._lock:
            for model, counts in self._counts.items():
                edges = [*(f"{edge:g}" for edge in CONFIDENCE_EDGES), "+Inf"]
                buckets = list(zip(edges, np.cumsum(counts).tolist(), strict=True))
                family.add_metric(model, buckets, self._sums[model])
        yield family


CONFIDENCE = ConfidenceHistogram()


class ModelMetrics:
    """Of a model that is served. class_names: by label."""

    _served: ClassVar[dict[tuple[str, str], "ModelMetrics"]] = {}

    def __init__(self, name: str, version: str, class_names: Iterable[str]) -> None:
        self._model = name, version
        self._predicted = [PREDICTED.labels(name, version, text) for text in class_names]
        self._batch = BATCH.labels(name, version)

    def begin(self, batcher: Batcher) -> None:
        """Say from now on that the model is served, and how many requests wait for it."""
        self._served[self._model] = self
        READY.labels(*self._model).set(1)
        WAITING.labels(*self._model).set_function(lambda: batcher.waiting)

    def add(self, results: Results) -> None:
        """Count the images of a batch."""
        labels = results[LABELS]
        counts = np.bincount(labels)
        for label in np.flatnonzero(counts):
            self._predicted[label].inc(int(counts[label]))
        self._batch.observe(len(labels))
        CONFIDENCE.add(self._model, results[CONFIDENCES])

    def end(self) -> None:
        """Say nothing more of the model, unless it has been loaded again meanwhile."""
        if self._served.get(self._model) is self:
            del self._served[self._model]
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
