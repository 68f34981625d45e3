"""gRPC: the servicer of the protocol, and the servers that take its calls."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from http import HTTPStatus
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from mlserver.errors import MLServerError
from mlserver.grpc import GRPCServer
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.converters import ModelMetadataResponseConverter
from mlserver.grpc.dataplane_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from mlserver.grpc.interceptors import LoggingInterceptor, PromServerInterceptor
from mlserver.grpc.servicers import InferenceServicer
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.settings import Settings
from mlserver.tracing import get_tracer_provider
from opentelemetry.instrumentation.grpc import aio_server_interceptor

from ..inference.grpc import read_request, write_response
from ..inference.limits import IN_HAND
from ..inference.messages import RequestError, one_line
from .access import ACCESS, GateInterceptor
from .models import Models, id_headers
from .repository import Handlers

logger = logging.getLogger("mlserver.fashion")
SERVERS = 16
CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.FAILED_PRECONDITION,
    HTTPStatus.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
Method = Callable[[Any, Any, Any], Awaitable[Any]]


def in_words(method: Method) -> Method:
    """A method that ends a call which it rejects with a code and a sentence, and logs a line."""

    @wraps(method)
    async def rejecting(servicer: Any, request: Any, context: Any) -> Any:
        try:
            return await method(servicer, request, context)
        except (RequestError, MLServerError) as error:
            return _reject(error, context)

    return rejecting


def _reject(error: RequestError | MLServerError, context: Any) -> None:
    # context.abort would raise an error that refers to itself, and so keep the request in memory
    status = error.status if isinstance(error, RequestError) else error.status_code
    logger.warning("refused with %d: %s", status, one_line(error))
    context.set_code(CODES.get(HTTPStatus(status), grpc.StatusCode.UNKNOWN))
    context.set_details(str(error))


class Servicer(InferenceServicer):
    """Reads and writes messages directly, and rejects in words."""

    def __init__(self, models: Models, data_plane: DataPlane, handlers: Handlers) -> None:
        super().__init__(data_plane, handlers)
        self._models = models

    @in_words
    async def ModelInfer(self, request: bytes, context: Any) -> Any:  # noqa: N802
        """The response to a request, as `add_to` has it: its bytes."""
        return await self._infer(request, context)

    async def ModelStreamInfer(  # noqa: N802
        self, requests_stream: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelInferResponse]:
        """A response to each request of a stream."""
        try:
            async for request in requests_stream:
                yield await self._infer(request, context)
        except (RequestError, MLServerError) as error:
            _reject(error, context)

    async def _infer(self, message: Any, context: Any) -> pb.ModelInferResponse:
        with self._models.exchange("grpc") as exchange:
            try:
                if isinstance(message, bytes):
                    message = pb.ModelInferRequest.FromString(message)
            except DecodeError:
                raise RequestError("expected a ModelInferRequest, got other bytes") from None
            exchange.model, exchange.version = message.model_name, message.model_version
            model = await self._models.find(exchange)
            counted = IN_HAND.count(0, message.ByteSize(), model.limits)
            try:
                response = await self._models.infer(read_request(message), exchange)
            finally:
                IN_HAND.release(counted)
            fields = self._models.headers(exchange.model) | id_headers(response.id)
            context.set_trailing_metadata(tuple(fields.items()))
            return write_response(response, pb.ModelInferResponse())

    def add_to(self, server: grpc.aio.Server) -> None:
        """Take the server's calls, of ModelInfer the bytes.

        gRPC would read messages before it asks us, and keep both until the response is sent: 24 of
        31 MB at once took 2.9 GB, 2.4 this way.
        """
        infer = grpc.unary_unary_rpc_method_handler(
            self.ModelInfer, response_serializer=pb.ModelInferResponse.SerializeToString
        )
        service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
        add_GRPCInferenceServiceServicer_to_server(self, server)
        server.add_registered_method_handlers(service, {"ModelInfer": infer})

    async def ServerReady(self, *_: Any) -> pb.ServerReadyResponse:  # noqa: N802
        """Whether every packaged model is ready."""
        return pb.ServerReadyResponse(ready=await self._models.are_ready())

    @in_words
    async def ModelReady(self, request: Any, _: Any) -> pb.ModelReadyResponse:  # noqa: N802
        """Whether a model is ready; NOT_FOUND for one that is not there."""
        return pb.ModelReadyResponse(
            ready=await self._models.is_ready(request.name, request.version)
        )

    @in_words
    async def ModelMetadata(self, request: Any, _: Any) -> pb.ModelMetadataResponse:  # noqa: N802
        """What a model is; NOT_FOUND likewise."""
        metadata = await self._data_plane.model_metadata(request.name, request.version or None)
        return ModelMetadataResponseConverter.from_types(metadata)

    async def RepositoryIndex(self, request: Any, context: Any) -> pb.RepositoryIndexResponse:  # noqa: N802
        """With the states' names as the protocol has them, READY rather than State.READY."""
        index = await super().RepositoryIndex(request, context)
        for model in index.models:
            model.state = model.state.removeprefix("State.")
        return index

    @in_words
    async def RepositoryModelLoad(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Load a model; PERMISSION_DENIED where settings.json does not allow it."""
        await self._model_repository_handlers.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    @in_words
    async def RepositoryModelUnload(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Unload a model; likewise."""
        await self._model_repository_handlers.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()


class MetricsInterceptor(PromServerInterceptor):
    """Counts calls as MLServer does, but wraps each method once, not with each call."""

    def __init__(self) -> None:
        super().__init__(enable_handling_time_histogram=True)
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


class ServersOnOnePort:
    """Several servers of grpc.aio as one; the system shares connections out among them.

    One takes one call a turn of the event loop, or of two: beside many requests over REST, which
    make turns long, others would wait for seconds.
    """

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
        """Answer the calls that are under way, for so many seconds at most."""
        await asyncio.gather(*(server.stop(grace) for server in self._servers))


class GrpcServer(GRPCServer):
    """MLServer's gRPC server, with the servicer above."""

    def __init__(
        self,
        settings: Settings,
        data_plane: DataPlane,
        model_repository_handlers: ModelRepositoryHandlers,
    ) -> None:
        super().__init__(settings, data_plane, model_repository_handlers)
        handlers = Handlers(model_repository_handlers._repository, data_plane._model_registry)
        self._models = Models(data_plane, handlers._repository.observers)
        self._servicer = Servicer(self._models, data_plane, handlers)

    def _create_server(self) -> ServersOnOnePort:
        settings, interceptors = self._settings, []
        if ACCESS.tokens:
            interceptors.append(GateInterceptor(ACCESS.tokens, self._models.observers))
        if settings.debug:
            interceptors.append(LoggingInterceptor())
        if settings.metrics_endpoint:
            interceptors.append(MetricsInterceptor())
        if settings.tracing_server:
            provider = get_tracer_provider(settings)
            interceptors.append(aio_server_interceptor(tracer_provider=provider))
        pool = ThreadPoolExecutor(1)  # for servicers that are not asynchronous; there are none
        servers = []
        for _ in range(SERVERS):
            server = grpc.aio.server(pool, interceptors=interceptors, options=self._get_options())
            self._servicer.add_to(server)
            self._listen(server, f"{settings.host}:{settings.grpc_port}")
            servers.append(server)
        self._server = ServersOnOnePort(servers)
        return self._server

    def _listen(self, server: grpc.aio.Server, address: str) -> None:
        certificate = ACCESS.certificate
        if certificate is None:
            server.add_insecure_port(address)
            return

        def pair() -> grpc.ServerCertificateConfiguration:
            chain, key = certificate.contents
            return grpc.ssl_server_certificate_configuration([(key, chain)])

        server.add_secure_port(address, grpc.dynamic_ssl_server_credentials(pair(), pair))
