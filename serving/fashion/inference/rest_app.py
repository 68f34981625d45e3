"""The protocol over REST, as an ASGI application."""

import asyncio
import gzip
import re
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import logger
from .errors import RETRY_SECONDS, RequestError, one_line
from .handler import CLIENT_GONE, LARGE, Handler, Models, run_in
from .limits import MB, Admission, Limits
from .messages import InferRequest
from .rest import BINARY, JSON, JSON_LENGTH, accepts_gzip, inflate, read_request, write_response

MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
OTHER_BODIES = Limits(body_mb=1, bodies_mb=160, request_seconds=0, waiting=0)  # of other routes
COMPRESSED_BYTES, GZIP_LEVEL = 1024, 1  # smaller responses go out in one packet anyway


def error_response(
    path: str, status: int, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The response of a rejected request; logs a line."""
    message = one_line(message)
    logger.warning("rejected with %d: %s: %s", status, one_line(path), message)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"retry-after": str(RETRY_SECONDS)}
    return JSONResponse({"error": message}, status, headers)


class RestApp:
    """Serves inference, the other routes of the protocol, and `routes`.

    Any other request goes to `fallback`, within OTHER_BODIES, or gets 404. compress: responses
    with gzip, for clients that accept it.
    """

    def __init__(
        self,
        handler: Handler,
        routes: Sequence[BaseRoute] = (),
        fallback: ASGIApp | None = None,
        compress: bool = True,
    ) -> None:
        self._handler, self._gzip = handler, compress
        self._other = Starlette(
            routes=[*routes, *_routes(handler.models)],
            middleware=[Middleware(GZipMiddleware)] if compress else [],
            exception_handlers={RequestError: send_error, HTTPException: send_error},
        )
        if fallback:
            self._other.router.default = fallback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope["root_path"])
        match = INFER.fullmatch(path) if scope["method"] == "POST" else None
        try:
            if match:
                await self._infer(RestTransport(scope, receive, match), scope, send)
            else:
                await self._forward(scope, receive, send)
        except RequestError as error:
            if error.status != CLIENT_GONE and "rejected" not in scope:
                response = error_response(scope["path"], error.status, str(error))
                await response(scope, receive, send)

    async def _infer(self, transport: "RestTransport", scope: Scope, send: Send) -> None:
        body, json_length = await self._handler.handle(transport)
        kind = JSON if json_length is None else BINARY
        headers = [(b"content-type", kind.encode())]
        if self._gzip and len(body) >= COMPRESSED_BYTES:
            headers.append((b"vary", b"accept-encoding"))
            if accepts_gzip(_header(scope, "accept-encoding") or ""):
                body = await asyncio.to_thread(gzip.compress, body, GZIP_LEVEL)
                headers.append((b"content-encoding", b"gzip"))
        headers.append((b"content-length", b"%d" % len(body)))
        if json_length is not None:
            headers.append((JSON_LENGTH.encode(), b"%d" % json_length))
        await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Files are sent whole: thousands of ranges would take as many reads.
        fields = [field for field in scope["headers"] if field[0] not in (b"range", b"if-range")]
        scope = {**scope, "headers": fields}
        with Admission(OTHER_BODIES) as admission:
            body = await read_body(scope, receive, admission)
        messages: list[Message] = [{"type": "http.request", "body": bytes(body)}]

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive()

        await self._other(scope, receive_again, send)


class RestTransport:
    """An inference request over REST."""

    protocol = "rest"

    def __init__(self, scope: Scope, receive: Receive, match: re.Match[str]) -> None:
        self._scope, self._receive, self._match = scope, receive, match

    def address(self) -> tuple[str, str]:
        name, version = self._match.groups("")
        return name, version

    async def receive(self, admission: Admission) -> bytes | bytearray:
        return await read_body(self._scope, self._receive, admission)

    def parse(self, payload: bytes | bytearray) -> InferRequest:
        return read_request(payload, _header(self._scope, JSON_LENGTH), self._headers)

    def _headers(self) -> dict[str, str]:
        fields = self._scope["headers"]
        return {name.decode("latin1"): value.decode("latin1") for name, value in fields}

    write = staticmethod(write_response)


async def read_body(scope: Scope, receive: Receive, admission: Admission) -> bytes | bytearray:
    """All of a body, counted, without Content-Encoding. Raises RequestError."""
    admission.limits.check_body(int(_header(scope, "content-length") or 0))
    message = await _next_message(scope, receive)
    content: bytes | bytearray = message["body"]
    if message.get("more_body"):
        content = bytearray(content)
        async with admission.arriving():
            while message.get("more_body"):
                admission.count(len(content))
                message = await _next_message(scope, receive)
                content += message["body"]
            admission.count(len(content))
    else:
        admission.count(len(content))
    encoding = _header(scope, "content-encoding")
    if encoding is None or encoding.lower() == "identity":
        return content
    content = await run_in(LARGE, inflate, content, encoding, admission.limits.body_mb * MB)
    admission.count(len(content))
    return content


async def _next_message(scope: Scope, receive: Receive) -> Message:
    """Raises RequestError if the connection has ended, with HttpProtocol's reason, if any."""
    message = await receive()
    if message["type"] != "http.request":
        raise RequestError(*scope.get("rejected", ("", CLIENT_GONE)))
    return message


def _header(scope: Scope, name: str) -> str | None:
    expected = name.encode()
    for key, value in scope["headers"]:
        if key == expected:
            return value.decode("latin1")
    return None


def _routes(models: Models) -> list[BaseRoute]:
    """The protocol's routes; inference is listed for its methods alone."""

    def ready(content: dict[str, Any], is_ready: bool) -> Response:
        return JSONResponse(content | {"ready": is_ready}, HTTPStatus.OK if is_ready else 400)

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def server_ready(_: Request) -> Response:
        return ready({}, await models.are_ready())

    async def model_ready(request: Request) -> Response:
        name, version = _model(request)
        return ready({"name": name}, await models.is_ready(name, version))

    async def server_metadata(_: Request) -> Response:
        return JSONResponse(await models.server_metadata())

    async def model_metadata(request: Request) -> Response:
        return JSONResponse(await models.metadata(*_model(request)))

    async def index(request: Request) -> Response:
        try:
            content = await request.json() if await request.body() else {}
            only_ready = content.get("ready") or False
            if not isinstance(only_ready, bool):
                raise ValueError
        except (ValueError, AttributeError, RecursionError):
            raise RequestError('expected a body like {"ready": true}, or none') from None
        return JSONResponse(await models.index(only_ready))

    async def load(request: Request) -> Response:
        await models.load(_model(request)[0])
        return Response()

    async def unload(request: Request) -> Response:
        await models.unload(_model(request)[0])
        return Response()

    async def infer(_: Request) -> Response:  # matched before, except with a newline at its end
        raise HTTPException(HTTPStatus.NOT_FOUND)

    paths: list[tuple[str, Callable[[Request], Awaitable[Response]], str]] = [
        ("/v2", server_metadata, "GET"),
        ("/v2/health/live", live, "GET"),
        ("/v2/health/ready", server_ready, "GET"),
        (MODEL, model_metadata, "GET"),
        (VERSION, model_metadata, "GET"),
        (f"{MODEL}/ready", model_ready, "GET"),
        (f"{VERSION}/ready", model_ready, "GET"),
        (f"{MODEL}/infer", infer, "POST"),
        (f"{VERSION}/infer", infer, "POST"),
        ("/v2/repository/index", index, "POST"),
        ("/v2/repository/models/{name}/load", load, "POST"),
        ("/v2/repository/models/{name}/unload", unload, "POST"),
    ]
    return [Route(path, endpoint, methods=[method]) for path, endpoint, method in paths]


def _model(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


async def send_error(request: Request, error: Exception) -> Response:
    """The response of a route that rejects a request, or of an unknown path or method."""
    path, message = request.url.path, str(error)
    status = getattr(error, "status", getattr(error, "status_code", HTTPStatus.BAD_REQUEST))
    headers = getattr(error, "headers", None)
    if isinstance(error, HTTPException):
        allowed = ", ".join(sorted((headers or {}).get("Allow", "").split(", ")))
        expected = f"{allowed} of this path" if allowed else "a path of /v2/docs/dataplane.json"
        message = f"expected {expected}, got {request.method} {path}"
    return error_response(path, status, message, headers)
