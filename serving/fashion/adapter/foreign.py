"""Models of any runtime that MLServer loads, as inference/ serves them.

MLServer's stock runtimes for scikit-learn and XGBoost compute in a thread, batched where their
settings say so; any other one predicts on the event loop, as in MLServer.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.model import MLModel
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse

from ..inference import logger
from ..inference.batching import Batcher
from ..inference.handler import ServedModel
from ..inference.limits import Limits, WaitingLimit
from ..inference.messages import InferRequest, RequestedOutput
from ..inference.metrics import ModelMetrics
from ..inference.predictor import Encoded, Signature
from .payloads import as_request_error, check_inputs, from_outputs, plain, to_payload
from .stock import StockPredictor, is_stock

# Of models whose settings name none, in parameters.extra.limits.
NO_LIMITS = Limits(body_mb=64, bodies_mb=160, request_seconds=60, waiting=4000)


def serve(model: MLModel) -> None:
    """Give a model, which may not be loaded yet, what the handler needs: `served`, `metrics`."""
    settings, name, version = model.settings, model.name, model.version or ""
    limits = _limits(settings)
    metrics = ModelMetrics(name, version)
    signature: Signature
    if is_stock(model):
        signature = StockPredictor(model)
        is_batched = settings.max_batch_size > 1 and settings.max_batch_time > 0
        max_rows = settings.max_batch_size if is_batched else 1
        delay = settings.max_batch_time * 1000 if is_batched else 0
        predict = metrics.counted(signature)
        infer: Any = Batcher(signature, predict, max_rows, delay, limits.waiting)
        metrics.register(lambda: model.ready, infer)
    else:
        signature, infer = RuntimeSignature(model), calls_to(model, limits.waiting)
        metrics.register(lambda: model.ready)
    vars(model).update(served=ServedModel(name, version, signature, limits, infer), metrics=metrics)


def _limits(settings: ModelSettings) -> Limits:
    extra = (settings.parameters and settings.parameters.extra) or {}
    try:
        return msgspec.convert(extra["limits"], Limits) if "limits" in extra else NO_LIMITS
    except msgspec.ValidationError as error:
        logger.warning("%s: parameters.extra.limits: %s; others hold", settings.name, error)
        return NO_LIMITS


class RuntimeSignature(Signature):
    """A model that its runtime's `predict` alone knows."""

    def __init__(self, model: MLModel) -> None:
        self._settings = model.settings

    def decode(self, request: InferRequest) -> InferenceRequest:
        """A request in MLServer's types. Raises RequestError."""
        return to_payload(check_inputs(request, self._settings))

    def check_outputs(self, request: InferRequest) -> Sequence[RequestedOutput]:
        """All that a request names, since the runtime alone knows them; "" for what it does not."""
        return request.outputs or [RequestedOutput("", request.binary)]

    def encode(self, results: Any, outputs: Sequence[RequestedOutput]) -> Encoded:
        response: InferenceResponse = results
        return Encoded(from_outputs(response.outputs, outputs), plain(response.parameters))


def calls_to(model: MLModel, most: int) -> Callable[[InferenceRequest], Awaitable[Any]]:
    """What has a runtime predict, on the event loop, at most so many requests at a time.

    It raises RequestError where the runtime raises MLServerError. MLServer's own batching, which
    is an attribute of the model, is left out.
    """
    waiting = WaitingLimit(most)

    async def infer(payload: InferenceRequest) -> Any:
        try:
            with waiting, model_context(model.settings):
                return await type(model).predict(model, payload)
        except MLServerError as error:
            raise as_request_error(error) from None

    return infer
