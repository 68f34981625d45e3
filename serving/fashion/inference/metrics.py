"""Metrics for Prometheus: of requests, batches and models."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from typing import Any, ClassVar

from prometheus_client import Counter, Gauge, Histogram

from .batching import Batcher
from .handler import RequestContext
from .limits import Admission
from .predictor import Predictor, Results

MODEL_LABELS = ["model", "version"]
OK, NO_MODEL = "ok", ("", "")  # the labels of a request for an unknown model
REQUESTS = Counter(
    "fashion_requests",
    "Requests: ok, or the status of HTTP.",
    [*MODEL_LABELS, "protocol", "outcome"],
)
SECONDS = Histogram(
    "fashion_request_seconds",
    "From a whole request to its response.",
    MODEL_LABELS,
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
BATCH = Histogram(
    "fashion_batch_images",
    "Rows that are computed together.",
    MODEL_LABELS,
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
)
READY = Gauge(
    "fashion_model_ready", "1 for a model that is served, 0 for one that is not.", MODEL_LABELS
)
WAITING = Gauge("fashion_requests_waiting", "Requests that wait for a model.", MODEL_LABELS)
BYTES = Gauge("fashion_body_bytes_in_hand", "Bytes of requests that are read or computed.")
BYTES.set_function(lambda: Admission.in_flight)
LOST = Counter("fashion_request_log_lost_lines", "Lines that the request log could not write.")


class ModelMetrics:
    """Metrics of a loaded model."""

    _loaded: ClassVar[dict[tuple[str, str], "ModelMetrics"]] = {}

    def __init__(self, name: str, version: str) -> None:
        self._model = name, version
        self._batch = BATCH.labels(name, version)

    def register(self, is_ready: Callable[[], bool], infer: object = None) -> None:
        """Show whether the model is ready, and the queue where `infer` is a Batcher."""
        self._loaded[self._model] = self
        READY.labels(*self._model).set_function(lambda: float(is_ready()))
        if isinstance(infer, Batcher):
            WAITING.labels(*self._model).set_function(lambda: infer.queue_size)

    def counted(self, predictor: Predictor) -> Callable[[Any], Results]:
        """The predictor's predict, with each batch counted here and by the predictor."""

        def predict(rows: Any) -> Results:
            results = predictor.predict(rows)
            self._batch.observe(len(rows))
            predictor.observe(results)
            return results

        return predict

    def unregister(self) -> None:
        """Remove the model's gauges, unless it has been reloaded meanwhile."""
        if self._loaded.get(self._model) is self:
            del self._loaded[self._model]
            for gauge in (READY, WAITING):
                with suppress(KeyError):  # a model without batches has no queue
                    gauge.remove(*self._model)


def add_request(context: RequestContext) -> None:
    served = context.served
    model = (served.name, served.version) if served else NO_MODEL
    requests, seconds = _children(*model, context.protocol, context.status)
    requests.inc()
    seconds.observe(context.seconds)


@cache
def _children(name: str, version: str, protocol: str, status: int) -> tuple[Counter, Histogram]:
    outcome = OK if status == HTTPStatus.OK else str(status)
    return REQUESTS.labels(name, version, protocol, outcome), SECONDS.labels(name, version)
