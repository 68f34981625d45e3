"""The ASGI application that takes every inference request, and hands on all others."""

import logging
import re
from functools import cache
from http import HTTPStatus
from typing import Any

from mlserver.settings import Settings
from prometheus_client import Counter, Histogram
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette_exporter import PrometheusMiddleware

from ..adapter.models import Models, id_headers
from .exchange import CLIENT_GONE, Exchange
from .infer import LARGE, in_thread
from .limits import IN_HAND, MB, SMALL_BODY, Limits
from .messages import RETRY_SECONDS, RequestError, one_line
from .rest import (
    BINARY,
    JSON,
    JSON_LENGTH,
    inflate,
    read_request,
    write_response,
)

logger = logging.getLogger("mlserver.fashion")
VERBS = "infer|generate|infer_stream|generate_stream"
INFER = re.compile(rf"/v2/models/([^/]+)(?:/versions/([^/]+))?/({VERBS})")
STREAM = "text/event-stream; charset=utf-8"
OTHER_BODIES = Limits(body_mb=1, bodies_mb=16, request_seconds=0, waiting=0)  # a few names, if any


def refusal(
    path: str, status: int, sentence: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The response of a rejected request, which leaves a line in the log. path: "" to omit it."""
    sentence = one_line(sentence)
    place = f"{one_line(path)}: " if path else ""
    logger.warning("refused with %d: %s%s", status, place, sentence)
    return JSONResponse({"error": sentence}, status, headers)


class RestApplication:
    """An ASGI application that answers every inference request, and hands on all others."""

    def __init__(self, app: ASGIApp, models: Models, settings: Settings) -> None:
        self._app, self._models = app, models
        self._metrics: Any = None
        if settings.metrics_endpoint:  # as MLServer's application counts its own
            prefix = settings.metrics_rest_server_prefix
            self._metrics = PrometheusMiddleware(app, app_name="mlserver", prefix=prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope["root_path"])
        place = INFER.fullmatch(path) if scope["method"] == "POST" else None
        try:
            if place:
                await self._infer(place, scope, receive, send)
            else:
                await self._hand_on(scope, receive, send)
        except ClientGoneError:
            pass

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = {name for name, _ in scope["headers"]}
        if names.isdisjoint({b"content-length", b"transfer-encoding"}):
            await self._app(scope, receive, send)
            return
        try:
            with Body(scope, OTHER_BODIES) as incoming:
                body = await incoming.read(receive)
        except RequestError as error:
            await refusal(scope["path"], error.status, str(error))(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": bytes(body)}]

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, receive_again, send)

    async def _infer(
        self, place: re.Match[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        verb = place[3]
        exchange = self._models.exchange("rest")
        exchange.model, exchange.version = place.groups("")[:2]
        try:
            with exchange:
                await self._respond(exchange, scope, receive, send, as_stream="stream" in verb)
        except RequestError as error:
            busy = error.status == HTTPStatus.SERVICE_UNAVAILABLE
            again = {"retry-after": str(RETRY_SECONDS)} if busy else None
            await refusal(scope["path"], error.status, str(error), again)(scope, receive, send)
        if self._metrics:
            requests, seconds = self._counters(bool(exchange.version), verb, exchange.status)
            requests.inc()
            seconds.observe(exchange.seconds)

    async def _respond(
        self, exchange: Exchange, scope: Scope, receive: Receive, send: Send, *, as_stream: bool
    ) -> None:
        model = await self._models.find(exchange)
        with Body(scope, model.limits) as incoming:
            body = await incoming.read(receive)
            exchange.arrived()
            length = incoming.header(JSON_LENGTH)
            if len(body) > SMALL_BODY:
                request = await in_thread(LARGE, read_request, body, length)
            else:
                request = read_request(body, length)
            del body  # which the images of a large request replace
            response = await self._models.infer(request, exchange)
            written = write_response(response)
        headers = self._headers(exchange.model) + _encoded(id_headers(response.id))
        await _send(send, *written, headers, as_stream)

    @cache  # noqa: B019 (there is one, as long as the server)
    def _headers(self, name: str) -> list[tuple[bytes, bytes]]:
        return _encoded(self._models.headers(name))

    @cache  # noqa: B019
    def _counters(self, has_version: bool, verb: str, status: int) -> tuple[Counter, Histogram]:
        version = "/versions/{model_version}" if has_version else ""
        labels = "POST", f"/v2/models/{{model_name}}{version}/{verb}", status, "mlserver"
        return self._metrics.request_count.labels(*labels), self._metrics.request_time.labels(
            *labels
        )


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _send(
    send: Send,
    body: bytes,
    json_length: int | None,
    headers: list[tuple[bytes, bytes]],
    as_stream: bool,
) -> None:
    if as_stream:
        body = b"data: " + body + b"\n\n"
    kind = STREAM if as_stream else JSON if json_length is None else BINARY
    headers += [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    if json_length is not None:
        headers.append((JSON_LENGTH.encode(), b"%d" % json_length))
    await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class ClientGoneError(Exception):
    """The connection has ended before the request had arrived: see HttpProtocol for a refusal."""

    def __init__(self, status: int = CLIENT_GONE, sentence: str = "") -> None:
        super().__init__(sentence)
        self.status = status


class Body:
    """A body, counted among those in hand until the end of a `with` block."""

    def __init__(self, scope: Scope, limits: Limits) -> None:
        self._limits, self._counted = limits, 0
        self._scope, self._headers = scope, dict(scope["headers"])

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        IN_HAND.release(self._counted)

    def header(self, name: str) -> str | None:
        """A header's value. name: in lower case."""
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin1")

    async def read(self, receive: Receive) -> bytes | bytearray:
        """All of it, without Content-Encoding. Raises RequestError, ClientGoneError."""
        self._count(int(self.header("content-length") or 0))
        content = await self._receive(receive)
        encoding = self.header("content-encoding")
        if encoding in (None, "identity"):
            return content
        content = await in_thread(LARGE, inflate, content, encoding, self._limits.body_mb * MB)
        self._count(len(content))
        return content

    async def _receive(self, receive: Receive) -> bytes | bytearray:
        content: bytes | bytearray = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientGoneError(*self._scope.get("refused", ()))
            if not content and not message.get("more_body"):
                return message["body"]
            content = bytearray(content) if isinstance(content, bytes) else content
            content += message["body"]
            if len(content) > self._counted:  # of a body that did not give its length
                self._count(len(content))
            if not message.get("more_body"):
                return content

    def _count(self, size: int) -> None:
        self._counted = IN_HAND.count(self._counted, size, self._limits)
