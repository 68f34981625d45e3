"""Models of other runtimes that MLServer loads, as inference/ serves them.

MLServer's stock runtimes for scikit-learn and XGBoost compute in a thread, batched where their
settings set it; any other one predicts on the event loop, as in MLServer.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from mlserver.codecs import NumpyCodec, NumpyRequestCodec, PandasCodec
from mlserver.codecs.numpy import to_datatype
from mlserver.context import model_context
from mlserver.errors import MLServerError
from mlserver.model import MLModel
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse, RequestOutput

from ..contract import NOT_SERVED
from ..inference import logger
from ..inference.batching import Batcher
from ..inference.errors import RequestError, one_line, quote
from ..inference.handler import ServedModel
from ..inference.limits import Limits, WaitingLimit
from ..inference.messages import InferRequest, OutputTensor, RequestedOutput
from ..inference.metrics import ModelMetrics
from ..inference.predictor import NUMBERS, Encoded, Predictor, Results, Signature
from ..inference.tensors import BYTES, read_tensor
from ..integrity import RAISE_IF_UNFIT, UnfitModelError
from .payloads import check_inputs, from_outputs, plain, to_payload

# Of models without parameters.extra.limits in their settings.
NO_LIMITS = Limits(body_mb=64, bodies_mb=160, request_seconds=60, waiting=4000)
STOCK = {  # by module, the outputs of MLServer's runtimes, the first by default
    "mlserver_sklearn.sklearn": ("predict", "predict_proba", "transform"),
    "mlserver_xgboost.xgboost": ("predict", "predict_proba"),
}
CODEC_ERROR = "decoding the payload: "  # in MLServer's messages, before the reason
NUMPY = NumpyCodec.ContentType


def serve(model: MLModel) -> None:
    """Give a model, which is not loaded yet, what the handler and the metrics need.

    One of this project's (runtimes.py) has `served` and `metrics` once it is loaded.
    """
    if not hasattr(model, "served"):
        metrics = ModelMetrics(model.name, model.version or "")
        vars(model).update(served=_served(model, metrics), metrics=metrics)
    vars(model).update(load=partial(_load, model), unload=partial(_unload, model))


def _served(model: MLModel, metrics: ModelMetrics) -> ServedModel:
    name, version, settings = model.name, model.version or "", model.settings
    limits = _limits(settings)
    if type(model).__module__ not in STOCK:
        signature = RuntimeSignature(model, limits.waiting)
        return ServedModel(name, version, signature, limits, signature.infer)
    predictor = StockPredictor(model)
    is_batched = settings.max_batch_size > 1 and settings.max_batch_time > 0
    max_rows = settings.max_batch_size if is_batched else 1
    delay = settings.max_batch_time * 1000 if is_batched else 0
    batcher = Batcher(predictor, metrics.counted(predictor), max_rows, delay, limits.waiting)
    return ServedModel(name, version, predictor, limits, batcher)


async def _load(model: MLModel) -> bool:
    """As the runtime does; at the start, an error leaves the other models served."""
    is_loaded = False
    try:
        is_loaded = await type(model).load(model)
    except Exception as error:
        if RAISE_IF_UNFIT.get():
            raise
        is_unfit = isinstance(error, UnfitModelError)
        reason = str(error) if is_unfit else f"{type(error).__name__}: {one_line(error)}"
        name = NOT_SERVED.format(name=model.name, version=model.version or "")
        logger.error("%s%s", name, reason, exc_info=not is_unfit)
    model.metrics.register(lambda: model.ready, getattr(model.served, "infer", None))
    return is_loaded


async def _unload(model: MLModel) -> bool:
    model.metrics.unregister()
    return await type(model).unload(model)


def extra_settings(settings: ModelSettings) -> dict[str, Any]:
    """The object parameters.extra of model-settings.json, empty for none."""
    return (settings.parameters and settings.parameters.extra) or {}


def _limits(settings: ModelSettings) -> Limits:
    extra = extra_settings(settings)
    try:
        return msgspec.convert(extra["limits"], Limits) if "limits" in extra else NO_LIMITS
    except msgspec.ValidationError as error:
        logger.warning("%s: parameters.extra.limits: %s; others hold", settings.name, error)
        return NO_LIMITS


class RuntimeSignature(Signature):
    """A model whose requests its runtime's `predict` decodes."""

    def __init__(self, model: MLModel, max_waiting: int) -> None:
        self._model, self._settings = model, model.settings
        self._waiting = WaitingLimit(max_waiting)

    def decode(self, request: InferRequest) -> InferenceRequest:
        """A request in MLServer's types. Raises RequestError."""
        return to_payload(check_inputs(request, self._settings))

    def check_outputs(self, request: InferRequest) -> Sequence[RequestedOutput]:
        """All that a request names: the runtime checks them. "" stands for those not named."""
        return request.outputs or [RequestedOutput("", request.binary)]

    def encode(self, results: InferenceResponse, outputs: Sequence[RequestedOutput]) -> Encoded:
        return Encoded(from_outputs(results.outputs, outputs), plain(results.parameters))

    async def infer(self, payload: InferenceRequest) -> Any:
        """The runtime's prediction, on the event loop. Raises RequestError.

        MLServer's adaptive batching, which is an attribute of the model, is not used.
        """
        try:
            with self._waiting, model_context(self._settings):
                return await type(self._model).predict(self._model, payload)
        except MLServerError as error:
            raise RequestError(str(error), error.status_code) from None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a request. data: array or DataFrame; outputs: methods to call with it."""

    data: Any
    outputs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.data)


class StockPredictor(Predictor):
    """Predicts as MLServer's runtimes for scikit-learn and XGBoost, several requests at a time."""

    def __init__(self, model: MLModel) -> None:
        self._model, self._settings = model, model.settings

    @property
    def _estimator(self) -> Any:
        return self._model._model

    def decode(self, request: InferRequest) -> Rows:
        """Rows as an array, or as the content types name them. Raises RequestError."""
        request = check_inputs(request, self._settings)
        outputs = tuple(output.name for output in self.check_outputs(request))
        is_array = self._is_array(request)
        data = read_tensor(request.inputs[0]) if is_array else self._decode_by_content_type(request)
        return Rows(self._check_columns(data), outputs)

    def _is_array(self, request: InferRequest) -> bool:
        """Whether a request is one tensor of numbers, of no content type but MLServer's default."""
        if len(request.inputs) != 1 or request.inputs[0].datatype == BYTES:
            return False
        tensor, declared = request.inputs[0], [self._settings, *self._model._inputs_index.values()]
        named = [request.parameters.get("content_type"), tensor.parameters.get("content_type")]
        return {*named, *map(content_type, declared)} <= {None, NUMPY}

    def _decode_by_content_type(self, request: InferRequest) -> Any:
        payload = to_payload(request)
        try:
            return self._model.decode_request(payload, NumpyRequestCodec)
        except Exception as error:  # whatever a codec raises for a request that it cannot read
            reason = one_line(error).partition(CODEC_ERROR)[2] or one_line(error)
            raise RequestError(f"expected a request that can be decoded, got {reason}") from None

    def _check_columns(self, data: Any) -> Any:
        """Data, if it has the columns that the estimator was fitted on. Raises RequestError."""
        try:
            count = self._estimator.n_features_in_
            names = list(getattr(self._estimator, "feature_names_in_", ()))
        except (AttributeError, ValueError):  # not all have them
            return data
        if hasattr(data, "columns") and names and not set(names) <= set(data.columns):
            actual = quote(", ".join(map(str, data.columns)))
            raise RequestError(f"expected columns {', '.join(map(str, names))}, got {actual}")
        if isinstance(data, np.ndarray) and data.shape[1:] != (count,):
            raise RequestError(f"expected shape [n, {count}], got {list(data.shape)}")
        return data

    @cached_property
    def output_names(self) -> list[str]:
        """The estimator's methods, first the one that settings name as `predict_fn`."""
        methods = STOCK[type(self._model).__module__]
        default = extra_settings(self._settings).get("predict_fn", methods[0])
        others = [name for name in methods if name != default and hasattr(self._estimator, name)]
        return [default, *others]

    def predict(self, rows: Rows) -> Results:
        return {name: getattr(self._estimator, name)(rows.data) for name in rows.outputs}

    def batch_key(self, rows: Rows) -> Hashable:
        """Of equal methods, columns, datatypes and trailing shapes."""
        if isinstance(rows.data, np.ndarray):
            return rows.outputs, rows.data.dtype, rows.data.shape[1:]
        if hasattr(rows.data, "columns"):
            return rows.outputs, tuple(rows.data.columns), tuple(rows.data.dtypes)
        return id(rows)  # computed alone

    def concatenate(self, batch: Sequence[Rows]) -> Rows:
        data = [rows.data for rows in batch]
        if isinstance(data[0], np.ndarray):
            return Rows(np.concatenate(data), batch[0].outputs)
        return Rows(pd.concat(data, ignore_index=True), batch[0].outputs)

    def encode(self, results: Results, outputs: Sequence[RequestedOutput]) -> Encoded:
        """As MLServer's runtimes do: arrays, or a tensor for each column."""
        encoded: list[OutputTensor] = []
        for output in outputs:
            values, declared = results[output.name], self._model._outputs_index.get(output.name)
            if PandasCodec.can_encode(values):
                tensors = PandasCodec.encode_outputs(values)
                encoded += from_outputs(tensors, [output._replace(name="")])
            elif isinstance(values, np.ndarray) and content_type(declared) in (None, NUMPY):
                encoded.append(_as_array(output, values))
            else:
                named = RequestOutput(name=output.name)
                encoded += from_outputs([self._model.encode(values, named, NumpyCodec)], [output])
        return Encoded(encoded)


def content_type(declared: Any) -> str | None:
    """The content type that settings declare for a model or a tensor."""
    return getattr(getattr(declared, "parameters", None), "content_type", None)


def _as_array(output: RequestedOutput, values: np.ndarray) -> OutputTensor:
    values = values if values.ndim > 1 else values[:, None]  # as MLServer sends it
    datatype, parameters = to_datatype(values.dtype).value, {} if output.binary else NUMBERS
    return OutputTensor(output.name, datatype, values, output.binary, parameters)
