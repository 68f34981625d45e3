"""The protocol over gRPC: its service, and the servers on one port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from http import HTTPStatus
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from . import logger
from .credentials import Certificate
from .errors import RequestError, one_line
from .grpc import read_request, write_metadata, write_response
from .handler import Handler, Models
from .limits import Admission
from .messages import InferRequest, InferResponse

SERVICE, HEALTH_SERVICE = "inference.GRPCInferenceService", "grpc.health.v1.Health"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
WATCH_SECONDS = 0.5  # between checks of readiness
SERVERS = 16
CODES: dict[int, grpc.StatusCode] = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.FAILED_PRECONDITION,
    HTTPStatus.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
Method = Callable[[Any, Any], Awaitable[Any]]


class GrpcTransport:
    """An inference request over gRPC. content: the bytes of its message; pb: the message types."""

    protocol = "grpc"

    def __init__(self, content: bytes, context: Any, pb: Any) -> None:
        self._content, self._context, self._pb = content, context, pb
        self._message: Any = None

    def address(self) -> tuple[str, str]:
        """Model and version of the message; `parse` reads its lists."""
        try:
            self._message = self._pb.ModelInferRequest.FromString(self._content)
        except DecodeError:
            raise RequestError("expected a ModelInferRequest, got other bytes") from None
        return self._message.model_name, self._message.model_version

    async def receive(self, admission: Admission) -> Any:
        admission.count(len(self._content))
        message, self._message = self._message, None
        return message

    def parse(self, payload: Any) -> InferRequest:
        return read_request(payload, self._metadata)

    def _metadata(self) -> dict[str, str]:
        return {name: str(value) for name, value in self._context.invocation_metadata() or ()}

    def write(self, response: InferResponse) -> bytes:
        return write_response(response, self._pb.ModelInferResponse()).SerializeToString()


class GrpcService:
    """The protocol's methods, and those of grpc.health.v1.

    pb: its message types, as generated from its protocol buffers; repositories: services that load
    models by messages of the same names, by their types.
    """

    def __init__(
        self, handler: Handler, pb: Any, repositories: Mapping[str, Any] | None = None
    ) -> None:
        self._handler, self._models, self._pb = handler, handler.models, pb
        self._repositories = repositories or {}
        self.health = Health(handler.models)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """All methods, for a server.

        Inference takes and returns bytes: gRPC would decode messages before it calls the method,
        and keep both until the response is sent: 24 of 31 MB at once took 2.9 GB, instead of 2.4.
        """
        health: dict[str, Method] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
        }
        repository: dict[str, Method] = {
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        methods = _unary(health | repository, self._pb)
        methods["ModelInfer"] = grpc.unary_unary_rpc_method_handler(abort_on_error(self._infer))
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._infer_stream)
        services = {SERVICE: methods, HEALTH_SERVICE: self.health.methods()}
        for name, pb in self._repositories.items():
            by_name = {"ModelLoad": self._load, "ModelUnload": self._unload}
            services[name] = _unary(repository, pb) | _unary(by_name, pb, "Repository")
        return [grpc.method_handlers_generic_handler(name, services[name]) for name in services]

    async def _infer(self, content: bytes, context: Any) -> bytes:
        return await self._handler.handle(GrpcTransport(content, context, self._pb))

    async def _infer_stream(
        self, contents: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        try:
            async for content in contents:
                yield await self._infer(content, context)
        except RequestError as error:
            _abort(error, context)

    async def _server_live(self, *_: Any) -> Any:
        return self._pb.ServerLiveResponse(live=True)

    async def _server_ready(self, *_: Any) -> Any:
        return self._pb.ServerReadyResponse(ready=await self._models.are_ready())

    async def _server_metadata(self, *_: Any) -> Any:
        return self._pb.ServerMetadataResponse(**await self._models.server_metadata())

    async def _model_ready(self, request: Any, _: Any) -> Any:
        is_ready = await self._models.is_ready(request.name, request.version)
        return self._pb.ModelReadyResponse(ready=is_ready)

    async def _model_metadata(self, request: Any, _: Any) -> Any:
        metadata = await self._models.metadata(request.name, request.version)
        return write_metadata(metadata, self._pb.ModelMetadataResponse())

    async def _index(self, request: Any, _: Any) -> Any:
        return self._pb.RepositoryIndexResponse(models=await self._models.index(request.ready))

    async def _load(self, request: Any, _: Any) -> Any:
        await self._models.load(request.model_name)
        return self._pb.RepositoryModelLoadResponse()

    async def _unload(self, request: Any, _: Any) -> Any:
        await self._models.unload(request.model_name)
        return self._pb.RepositoryModelUnloadResponse()


def _unary(methods: Mapping[str, Method], pb: Any, prefix: str = "") -> dict[str, Any]:
    """Methods whose messages have their names. prefix: of the messages' names alone."""
    return {
        name: grpc.unary_unary_rpc_method_handler(
            abort_on_error(method),
            getattr(pb, f"{prefix}{name}Request").FromString,
            getattr(pb, f"{prefix}{name}Response").SerializeToString,
        )
        for name, method in methods.items()
    }


class Health:
    """The health service of gRPC, of the server, "", and of each model; Kubernetes probes it.

    Its messages have one field each, as those of google.protobuf.wrappers: a text and a number.
    Source: gRPC Health Checking Protocol, grpc.health.v1.
    """

    def __init__(self, models: Models) -> None:
        self._models, self.is_ended = models, asyncio.Event()

    def methods(self) -> dict[str, Any]:
        types = StringValue.FromString, Int32Value.SerializeToString
        return {
            "Check": grpc.unary_unary_rpc_method_handler(abort_on_error(self._check), *types),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, *types),
        }

    async def _check(self, request: StringValue, _: Any) -> Int32Value:
        return Int32Value(value=await self._status(request.value))

    async def _watch(self, request: StringValue, _: Any) -> AsyncIterator[Int32Value]:
        last = None
        while not self.is_ended.is_set():
            try:
                status = await self._status(request.value)
            except RequestError:
                status = SERVICE_UNKNOWN
            if status != last:
                yield Int32Value(value=status)
                last = status
            with suppress(TimeoutError):
                await asyncio.wait_for(self.is_ended.wait(), WATCH_SECONDS)

    async def _status(self, service: str) -> int:
        if service in ("", SERVICE):
            is_ready = await self._models.are_ready()
        else:
            is_ready = await self._models.is_ready(service, "")
        return SERVING if is_ready else NOT_SERVING


def abort_on_error(method: Method) -> Method:
    """Maps RequestError to a gRPC status, and logs a line."""

    @wraps(method)
    async def rejecting(request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except RequestError as error:
            return _abort(error, context)

    return rejecting


def _abort(error: RequestError, context: Any) -> None:
    # context.abort would raise an error that refers to itself, and so keep the request in memory
    logger.warning("rejected with %d: %s", error.status, one_line(error))
    context.set_code(CODES.get(error.status, grpc.StatusCode.UNKNOWN))
    context.set_details(str(error))


class GrpcServers:
    """Several servers of grpc.aio on one port; the system distributes connections among them.

    A server accepts one call every turn or two of the event loop: with many requests over REST,
    which make turns long, calls would wait for seconds.
    """

    def __init__(
        self,
        service: GrpcService,
        address: str,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        options: Sequence[tuple[str, Any]] = (),
        certificate: Certificate | None = None,
    ) -> None:
        self._service = service
        self._servers = []
        for _ in range(SERVERS):
            server = grpc.aio.server(interceptors=interceptors, options=options)
            server.add_generic_rpc_handlers(service.handlers())
            _listen(server, address, certificate)
            self._servers.append(server)

    async def start(self) -> None:
        for server in self._servers:
            await server.start()

    async def wait_for_termination(self) -> None:
        for server in self._servers:
            await server.wait_for_termination()

    async def stop(self, grace: float | None) -> None:
        self._service.health.is_ended.set()  # of the calls that watch
        await asyncio.gather(*(server.stop(grace) for server in self._servers))


def _listen(server: grpc.aio.Server, address: str, certificate: Certificate | None) -> None:
    if certificate is None:
        server.add_insecure_port(address)
        return

    def pair() -> grpc.ServerCertificateConfiguration:
        chain, key = certificate.contents
        return grpc.ssl_server_certificate_configuration([(key, chain)])

    server.add_secure_port(address, grpc.dynamic_ssl_server_credentials(pair(), pair))
