"""What MLServer leaves open, closed from outside; settings.json names Repository, which brings it.

MLServer makes its parts by the names they have in its own modules, after it has read settings.json.
Subclasses of them take their places here, so that `mlserver start` itself starts them.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path
from socket import socket
from types import SimpleNamespace
from typing import Any

import grpc
import mlserver.grpc.server
import mlserver.metrics.server
import mlserver.registry
import mlserver.rest.app
import mlserver.rest.server
import mlserver.server
import uvicorn
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import StreamingResponse
from mlserver.errors import InferenceError, MLServerError, ModelNotFound, ModelNotReady
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferResponseConverter
from mlserver.grpc.interceptors import PromServerInterceptor
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import (
    STATUS_CODE_MAPPING,
    handle_mlserver_error,
    handle_mlserver_stream_error,
    to_metadata,
)
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.model import MLModel
from mlserver.repository import SchemalessModelRepository
from mlserver.repository.repository import DEFAULT_MODEL_SETTINGS_FILENAME as MODEL_SETTINGS
from mlserver.rest import RESTServer
from mlserver.rest.responses import Response, ServerSentEvent
from mlserver.settings import ModelSettings
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    State,
    TensorData,
)
from mlserver.utils import extract_headers, generate_uuid, insert_headers
from prometheus_client import Counter, Summary

from .express import Answer, Express, read_message, write_message
from .integrity import STRICT, UnfitModelError
from .tensors import Question, expected_datatype, expected_inputs, shown

logger = logging.getLogger("mlserver.fashion")
DRAIN_SECONDS = 0.1  # to take the connections that the system has already made
GRACE_SECONDS = 2.0  # at most, for a request to arrive on a connection that is there


class Repository(SchemalessModelRepository):
    """A folder of models, in which nothing is loaded or unloaded by request unless allowed.

    root: the folder; allow_load: what settings.json says of it.
    """

    allow_load = False

    def __init__(self, root: str, allow_load: bool = False) -> None:
        super().__init__(root)
        Repository.allow_load = allow_load


class Handlers(ModelRepositoryHandlers):
    """Loads and unloads models by request only where settings.json allows it."""

    async def load(self, name: str) -> bool:
        """Load a model, or a new version of it. Raises MLServerError, 403, or 409 if unfit."""
        self._check("load")
        strict = STRICT.set(True)
        try:
            return await super().load(name)
        except UnfitModelError as error:
            raise MLServerError(f"{name} is not loaded: {error}", HTTPStatus.CONFLICT) from None
        finally:
            STRICT.reset(strict)

    async def unload(self, name: str) -> bool:
        """Unload all versions of a model. Raises MLServerError, 403."""
        self._check("unload")
        return await super().unload(name)

    async def _get_state(self, model_settings: ModelSettings) -> State:
        """Of the version that is asked about, where MLServer takes the newest one's."""
        with suppress(ModelNotFound):
            model = await self._model_registry.get_model(
                model_settings.name, model_settings.version
            )
            return State.READY if model.ready else State.UNAVAILABLE
        return State.UNAVAILABLE

    def _check(self, what: str) -> None:
        if not Repository.allow_load:
            raise MLServerError(
                f"expected no request to {what} models: settings.json does not allow it "
                '(model_repository_implementation_args: {"allow_load": true})',
                HTTPStatus.FORBIDDEN,
            )


class Plane(DataPlane):
    """Says ready when every model of the repository is, and there is one."""

    async def ready(self) -> bool:
        """Whether all models are loaded, those included whose settings are broken."""
        models = list(await self._model_registry.get_models())
        root = Path(self._settings.model_repository_root)
        expected = len(list(root.rglob(MODEL_SETTINGS)))
        return len(models) >= max(expected, 1) and all(model.ready for model in models)

    async def model_ready(self, name: str, version: str | None = None) -> bool:
        """As MLServer has it; over gRPC, a version that is not given is "" rather than None."""
        return await super().model_ready(name, version or None)

    async def model_metadata(self, name: str, version: str | None = None) -> MetadataModelResponse:
        """As MLServer has it."""
        return await super().model_metadata(name, version or None)

    async def infer(
        self, payload: InferenceRequest, name: str, version: str | None = None
    ) -> InferenceResponse:
        """As MLServer has it, which would count requests for any name that is asked for."""
        await self._model_registry.get_model(name, version or None)
        return await super().infer(payload, name, version or None)

    async def answer(self, question: Question) -> Answer | None:
        """As `infer` does, of arrays rather than of MLServer's types; None if a model cannot."""
        asked = question.model, question.version or None
        model = await self._model_registry.get_model(*asked)
        if not hasattr(model, "answer"):  # by name: MLServer loads a runtime's module once more
            return None
        duration, failures, successes = self._counters(*asked)
        with duration.time(), failures.count_exceptions():
            if not model.ready:
                raise ModelNotReady(*asked)
            outputs = await model.answer(question)
        successes.inc()
        told = SimpleNamespace(id=question.id, parameters=None)
        if told.id is None:
            told.id = generate_uuid()
        self._inference_middleware.response_middleware(told, model.settings)
        return Answer(model.name, model.version, told.id, outputs, extract_headers(told) or {})

    @cache  # noqa: B019 (there is one Plane, as long as the server)
    def _counters(self, name: str, version: str | None) -> tuple[Summary, Counter, Counter]:
        return (
            self._ModelInferRequestDuration.labels(name, version),
            self._ModelInferRequestFailure.labels(name, version),
            self._ModelInferRequestSuccess.labels(name, version),
        )


class PatientServer(mlserver.rest.server._NoSignalServer):
    """Hears out, when it has to end, those who have connected; others are refused meanwhile."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not: they are MLServer's, which uvicorn would take away, and send again at the end."""
        yield

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """As uvicorn has it, which hangs up on who has connected and not yet asked."""
        for server in self.servers:
            for listening in server.sockets:
                with socket(fileno=os.dup(listening.fileno())) as same:
                    same.listen(0)  # takes nobody new while those who wait are taken
        await asyncio.sleep(DRAIN_SECONDS)
        for server in self.servers:
            server.close()
        for _ in range(round(GRACE_SECONDS / DRAIN_SECONDS)):
            if all(connection.cycle for connection in self.server_state.connections):
                break
            await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)


class Rest(RESTServer):
    """Answers every malformed request with 400 and one sentence, and logs a line for each."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._app.add_exception_handler(RequestValidationError, _answer_malformed)
        self._app.add_exception_handler(MLServerError, _answer_refused)

    def _get_config(self) -> uvicorn.Config:
        config, settings = super()._get_config(), self._settings
        if not (settings.root_path or settings.tracing_server or settings.cors_settings):
            config.app = Express(self._app, self._data_plane.answer, settings, _refuse)
        return config


async def _answer_malformed(request: Request, error: RequestValidationError) -> Response:
    return _refuse(request.url.path, HTTPStatus.BAD_REQUEST, _sentence(error.errors()[0]))


async def _answer_refused(request: Request, error: MLServerError) -> Response:
    return _refuse(request.url.path, error.status_code, str(error))


def _refuse(path: str, status: int, sentence: str) -> Response:
    sentence = _one_line(sentence)
    logger.warning("refused with %d: %s: %s", status, _one_line(path), sentence)
    return Response({"error": sentence}, status)


def _one_line(text: object) -> str:
    """As it is, but for what would begin a new line, or not be seen, in the log."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


def _sentence(error: dict[str, Any]) -> str:
    """What FastAPI found wrong with a body, in the words of the contract."""
    place, came = [str(part) for part in error["loc"][1:]], error.get("input")
    if error["type"] == "json_invalid":
        return f"expected a body in JSON, got an error: {error['ctx']['error']}"
    if place[-1:] == ["inputs"] and error["type"] == "missing":
        return expected_inputs(0)
    if place[-1:] == ["datatype"] and error["type"] == "enum":
        return expected_datatype(came)
    if error["type"] == "missing":
        return f"expected {'.'.join(place) or 'a body in JSON'}, got none"
    name = ".".join(place) or "the body"
    return f"expected another {name}, got {shown(came)}: {error['msg'].lower()}"


class Routes(mlserver.rest.app.Endpoints):
    """Refuses, before it begins a stream, what MLServer would break one off for, with 500."""

    async def infer_stream(
        self,
        raw_request: Request,
        payload: InferenceRequest,
        model_name: str,
        model_version: str | None = None,
    ) -> StreamingResponse:
        """The answer, as a stream of one event."""
        insert_headers(payload, dict(raw_request.headers))
        answer = await self._data_plane.infer(payload, model_name, model_version)
        event = ServerSentEvent(answer).encode()
        return StreamingResponse(iter([event]), media_type="text/event-stream")


class Counting(PromServerInterceptor):
    """Wraps each method once, not with each call."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """As MLServer has it."""
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = await super().intercept_service(continuation, handler_call_details)
        if handler:  # a method that is not there has none
            self._wrapped[method] = handler
        return handler


class Servicer(InferenceServicer):
    """Leaves raw tensors as they came, for tensors.py to read, and refuses what is no request."""

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> Any:  # noqa: N802
        """As MLServer has it, or the short way."""
        question = read_message(request)
        answer = await self._answer(question, context) if question else None
        return answer or await super().ModelInfer(request, context)

    @handle_mlserver_error
    async def _answer(self, question: Question, context: Any) -> pb.ModelInferResponse | None:
        answer = await self._data_plane.answer(question)
        if answer is None:
            return None
        context.set_trailing_metadata(to_metadata(answer.headers))
        return write_message(answer)

    def _InsertHeaders(self, request: pb.ModelInferRequest, context: Any) -> InferenceRequest:  # noqa: N802
        raw = list(request.raw_input_contents)
        if raw and len(raw) != len(request.inputs):
            raise InferenceError(
                f"expected as many raw contents as inputs, {len(request.inputs)}, got {len(raw)}"
            )
        request.ClearField("raw_input_contents")
        payload = super()._InsertHeaders(request, context)
        for tensor, content in zip(payload.inputs, raw, strict=False):
            tensor.data = TensorData.model_construct(root=content)
        return payload

    @handle_mlserver_stream_error
    async def ModelStreamInfer(  # noqa: N802
        self, requests_stream: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelInferResponse]:
        """An answer to each request; MLServer answers the first, and fails where there is none."""
        async for request in requests_stream:
            raw = self._GetReturnRaw(request)
            payload = self._InsertHeaders(request, context)
            answer = await self._data_plane.infer(
                payload, request.model_name, request.model_version
            )
            yield ModelInferResponseConverter.from_types(answer, use_raw=raw)

    async def RepositoryIndex(self, request: Any, context: Any) -> pb.RepositoryIndexResponse:  # noqa: N802
        """With the states' names as the protocol has them, READY rather than State.READY."""
        index = await super().RepositoryIndex(request, context)
        for model in index.models:
            model.state = model.state.removeprefix("State.")
        return index

    @handle_mlserver_error
    async def ModelReady(self, request: Any, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        """NOT_FOUND for a model that is not there."""
        return await super().ModelReady(request, context)


def _in_one_line(record: logging.LogRecord) -> bool:
    """MLServer logs the stack of each refusal over gRPC; this leaves a line of it."""
    error = record.msg
    if isinstance(error, MLServerError) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        record.msg, record.args = f"refused with {error.status_code}: {_one_line(error)}", ()
        record.exc_info, record.levelno, record.levelname = None, logging.WARNING, "WARNING"
    return True


def _is_newer(one: MLModel, other: MLModel) -> int:
    """Above 0 if the first has the higher number: v10 comes after v9."""
    return _number(one) - _number(other)


def _number(model: MLModel) -> int:
    digits = (model.version or "").removeprefix("v")
    return int(digits) if digits.isdecimal() else -1


def install() -> None:
    """Put the parts above in the places of MLServer's own."""
    mlserver.registry._is_newer = _is_newer
    mlserver.server.DataPlane = Plane
    mlserver.server.ModelRepositoryHandlers = Handlers
    mlserver.server.RESTServer = Rest
    mlserver.rest.server._NoSignalServer = PatientServer
    mlserver.metrics.server._NoSignalServer = PatientServer
    mlserver.rest.app.Endpoints = Routes
    mlserver.grpc.server.InferenceServicer = Servicer
    mlserver.grpc.server.PromServerInterceptor = Counting
    STATUS_CODE_MAPPING[HTTPStatus.FORBIDDEN] = grpc.StatusCode.PERMISSION_DENIED
    STATUS_CODE_MAPPING[HTTPStatus.CONFLICT] = grpc.StatusCode.FAILED_PRECONDITION
    logging.getLogger("mlserver.grpc").addFilter(_in_one_line)
    # Threads that wake up, as gRPC's do several times a request, let the running one go on: on two
    # cores a fifth more requests over gRPC.
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


install()
