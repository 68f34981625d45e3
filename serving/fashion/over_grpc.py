"""MLServer's gRPC side: taken by many, raw tensors left as they came, refusals in one line."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import grpc
from mlserver.errors import InferenceError, MLServerError
from mlserver.grpc import GRPCServer
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelInferResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.grpc.interceptors import PromServerInterceptor
from mlserver.grpc.model_repository_pb2_grpc import add_ModelRepositoryServiceServicer_to_server
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import handle_mlserver_error, handle_mlserver_stream_error, to_metadata
from mlserver.types import InferenceRequest, TensorData

from .express import read_message, write_message
from .tensors import Question, one_line

ACCEPTORS = 16


class Acceptors:
    """Servers on one port, as one; the system shares connections out among them."""

    def __init__(self, servers: Sequence[grpc.aio.Server]) -> None:
        self._servers = servers

    async def start(self) -> None:
        """Listen."""
        for server in self._servers:
            await server.start()

    async def wait_for_termination(self) -> None:
        """Return when they have been stopped."""
        for server in self._servers:
            await server.wait_for_termination()

    async def stop(self, grace: float | None) -> None:
        """Answer what was taken, for so many seconds at most."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers))


class Grpc(GRPCServer):
    """Takes requests in several places.

    A server of grpc.aio takes one request a turn of the event loop, or of two: beside many over
    REST, which make turns long, others waited for seconds.
    """

    def _create_server(self) -> Acceptors:
        servers = [super()._create_server()]
        pool = ThreadPoolExecutor(1)  # for servicers that are not asynchronous, of which is none
        while len(servers) < ACCEPTORS:
            server = grpc.aio.server(
                pool, interceptors=self._interceptors, options=self._get_options()
            )
            add_GRPCInferenceServiceServicer_to_server(self._inference_servicer, server)
            add_ModelRepositoryServiceServicer_to_server(self._model_repository_servicer, server)
            server.add_insecure_port(f"{self._settings.host}:{self._settings.grpc_port}")
            servers.append(server)
        self._server = Acceptors(servers)
        return self._server


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


def in_one_line(record: logging.LogRecord) -> bool:
    """MLServer logs the stack of each refusal over gRPC; this leaves a line of it."""
    error = record.msg
    if isinstance(error, MLServerError) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        record.msg, record.args = f"refused with {error.status_code}: {one_line(error)}", ()
        record.exc_info, record.levelno, record.levelname = None, logging.WARNING, "WARNING"
    return True
