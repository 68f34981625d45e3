"""Requests without a token are rejected before they are read, over REST and gRPC."""

import re
from collections.abc import Awaitable, Callable, Container
from http import HTTPStatus
from typing import Any

import grpc
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .credentials import Tokens
from .errors import RequestError

# Readiness says nothing that a probe of a cluster, which sends no token, need not know.
HEALTH = re.compile(r"/v2/health/(live|ready)|/v2/models/[^/]+(/versions/[^/]+)?/ready")
HEALTH_CALLS = "ServerLive", "ServerReady", "ModelReady", "Check", "Watch"
UNAUTHENTICATED = "expected a token of this server in the header Authorization, as Bearer TOKEN"


class AuthMiddleware:
    """An ASGI application in front of another, for those who have a token.

    open_paths: for everyone, as health is; reject: called for each other request without a token,
    of which nothing else is kept.
    """

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        open_paths: Container[str] = (),
        reject: Callable[[str, RequestError], None] = lambda *_: None,
    ) -> None:
        self._app, self._tokens = app, tokens
        self._open_paths, self._reject = open_paths, reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope) or self._has_token(scope):
            await self._app(scope, receive, send)
            return
        status = HTTPStatus.UNAUTHORIZED
        self._reject("rest", RequestError(UNAUTHENTICATED, status))
        headers = {"www-authenticate": "Bearer"}
        response = JSONResponse({"error": UNAUTHENTICATED}, status, headers)
        await response(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope["root_path"])
        is_read = scope["method"] in ("GET", "HEAD")
        return is_read and bool(path in self._open_paths or HEALTH.fullmatch(path))

    def _has_token(self, scope: Scope) -> bool:
        fields = [value for name, value in scope["headers"] if name == b"authorization"]
        return self._tokens.allow(fields)


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Ends calls without a token with UNAUTHENTICATED, before their message is read.

    reject: called for each.
    """

    def __init__(self, tokens: Tokens, reject: Callable[[str, RequestError], None]) -> None:
        self._tokens, self._reject = tokens, reject
        self._deny = grpc.stream_stream_rpc_method_handler(self._abort)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        metadata = handler_call_details.invocation_metadata
        fields = [value for name, value in metadata if name == "authorization"]
        given = [text.encode() if isinstance(text, str) else text for text in fields]
        is_health = handler_call_details.method.rpartition("/")[2] in HEALTH_CALLS
        if is_health or self._tokens.allow(given):
            return await continuation(handler_call_details)
        self._reject("grpc", RequestError(UNAUTHENTICATED, HTTPStatus.UNAUTHORIZED))
        return self._deny

    async def _abort(self, _: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED)
