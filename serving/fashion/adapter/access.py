"""Who may ask, and over TLS: a gate in front of REST, of gRPC and of the metrics."""

import re
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import grpc
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from ..inference.credentials import Certificate, Tokens
from ..inference.exchange import Exchange, Observer
from ..inference.http_protocol import GracefulServer
from ..inference.messages import RequestError
from ..inference.rest_app import refusal
from ..inference.settings import ServerSettings

SENTENCE = "expected a token of this server in the header Authorization, as Bearer TOKEN"
# Readiness says nothing that a probe of a cluster, which sends no token, need not know.
HEALTH = re.compile(r"/v2/health/(live|ready)|/v2/models/[^/]+(/versions/[^/]+)?/ready")
HEALTH_CALLS = "ServerLive", "ServerReady", "ModelReady"


class Access:
    """Of a process: its tokens and its certificate, if it has any."""

    tokens: Tokens | None = None
    certificate: Certificate | None = None
    open_metrics = False

    def configure(self, settings: ServerSettings) -> None:
        """Read the files that the settings name. Raises SecretError."""
        self.open_metrics = settings.open_metrics
        if settings.token_file:
            self.tokens = Tokens(settings.token_file)
        if settings.tls_cert and settings.tls_key:
            self.certificate = Certificate(settings.tls_cert, settings.tls_key)

    def refresh(self) -> None:
        """Read the files again that have changed."""
        for files in (self.tokens, self.certificate):
            if files:
                files.refresh()


ACCESS = Access()


def _observe_stranger(protocol: str, observers: Sequence[Observer]) -> None:
    with suppress(RequestError), Exchange(protocol, observers):
        raise RequestError(SENTENCE, HTTPStatus.UNAUTHORIZED)


class Gate:
    """An ASGI application in front of another, for those who have a token.

    open_paths: for everyone, beside health; of nothing else of a request is anything kept.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        open_paths: Container[str] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        self._app, self._tokens = app, tokens
        self._open_paths, self._observers = open_paths, observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, or answer 401."""
        if scope["type"] != "http" or self._is_open(scope) or self._has_token(scope):
            await self._app(scope, receive, send)
            return
        _observe_stranger("rest", self._observers)
        denied = refusal("", HTTPStatus.UNAUTHORIZED, SENTENCE, {"www-authenticate": "Bearer"})
        await denied(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope["root_path"])
        is_read = scope["method"] in ("GET", "HEAD")
        return is_read and bool(path in self._open_paths or HEALTH.fullmatch(path))

    def _has_token(self, scope: Scope) -> bool:
        fields = [value for name, value in scope["headers"] if name == b"authorization"]
        return self._tokens.allow(fields)


class GateInterceptor(grpc.aio.ServerInterceptor):
    """The same for calls of gRPC, by their metadata."""

    def __init__(self, tokens: Tokens, observers: Sequence[Observer]) -> None:
        self._tokens, self._observers = tokens, observers
        self._deny = grpc.stream_stream_rpc_method_handler(self._refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """The method, or one that ends a call with UNAUTHENTICATED before its message is read."""
        metadata = handler_call_details.invocation_metadata
        fields = [value for name, value in metadata if name == "authorization"]
        given = [text.encode() if isinstance(text, str) else text for text in fields]
        is_health = handler_call_details.method.rpartition("/")[2] in HEALTH_CALLS
        if is_health or self._tokens.allow(given):
            return await continuation(handler_call_details)
        _observe_stranger("grpc", self._observers)
        return self._deny

    async def _refuse(self, _: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, SENTENCE)


class MetricsServer(GracefulServer):
    """The server of the metrics, which asks for a token as the others do, unless it is open."""

    def __init__(self, config: uvicorn.Config) -> None:
        if ACCESS.tokens and not ACCESS.open_metrics:
            app: Any = config.app
            config.app = Gate(app, ACCESS.tokens)
        super().__init__(config)
