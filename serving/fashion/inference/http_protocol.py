"""HTTP/1.1 by uvicorn: bounds on size and time of a request, graceful shutdown."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from socket import socket
from typing import Any

import httptools
import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from . import logger
from .rest import JSON

HEAD_BYTES = 64 * 1024  # of a request's line and headers, at most
DRAIN_SECONDS = 0.1  # to accept the connections in the system's queue
GRACE_SECONDS = 2.0  # at most, for a request to arrive on an open connection
END_SECONDS = 20  # at most, for the requests that have arrived; then they are cut off


class HttpProtocol(HttpToolsProtocol):
    """Rejects requests with too long headers, or which do not arrive whole in time.

    An offer to upgrade the protocol is ignored (RFC 9110, 7.8): uvicorn loses the body behind it.
    """

    _since: float | None  # when the request that is arriving began to
    _in_head = False
    _segment_bytes = 0  # of whole segments within a head, whose last field may not have ended
    _fields = _field_bytes = 0  # of a head, as far as they are counted
    _is_resuming = False  # after an offer to upgrade: the new parser reads a head again

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._in_head:
            self._segment_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._in_head:
            self._check_head(self._segment_bytes)

    def _check_head(self, size: int) -> None:
        """Reject a head of more than HEAD_BYTES. size: of it, at least."""
        new = self.headers[self._fields :]
        self._fields += len(new)
        self._field_bytes += sum(len(name) + len(value) + len(b": \r\n") for name, value in new)
        if max(size, len(self.url) + self._field_bytes) > HEAD_BYTES:
            self._reject(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"expected at most {HEAD_BYTES:,} bytes of headers, got more",
            )

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                self._resume()

    def _resume(self) -> None:
        """Parse the body with a new parser, since the old one ignores its length."""
        if self.scope["method"] == "CONNECT":
            raise httptools.HttpParserError("CONNECT")
        keep = (b"content-length", b"transfer-encoding")
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] in keep]
        self.parser = httptools.HttpRequestParser(self)
        self.cycle.more_body, self._is_resuming = True, True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(fields))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._since = self.loop.time()
        self._in_head = True
        self._segment_bytes = self._fields = self._field_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._is_resuming:
            self._is_resuming = False
            return
        self._check_head(0)
        if self.transport.is_closing():
            raise ValueError("too long a head")  # ends the parser
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._since = None

    def end_if_late(self, seconds: float) -> None:
        """Close a connection whose request has not arrived whole within so many seconds."""
        if self._since is None or self.loop.time() - self._since <= seconds:
            return
        is_done = self.cycle is None or self.cycle.response_complete
        if is_done and not self._in_head:  # idle
            self.transport.close()
        elif self._in_head or not self.cycle.response_started:
            self._reject(
                HTTPStatus.REQUEST_TIMEOUT,
                f"expected a whole request within {seconds:g} seconds, got a part of one",
            )

    def is_whole(self) -> bool:
        """Whether the last request has arrived whole, and no other has begun."""
        return self.cycle is not None and not self._in_head and not self.cycle.more_body

    def send_400_response(self, msg: str) -> None:
        self._reject(HTTPStatus.BAD_REQUEST, f"expected a request of HTTP/1.1: {msg}")

    def _reject(self, status: HTTPStatus, message: str) -> None:
        if self.transport.is_closing():
            return
        self._since = None
        if self.cycle:  # its body will not arrive
            self.cycle.scope["rejected"] = message, status  # type: ignore[typeddict-unknown-key]
        logger.warning("rejected with %d: %s", status, message)
        body = orjson.dumps({"error": message})
        fields = f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + fields.encode() + body)
        self.transport.close()


class GracefulServer(uvicorn.Server):
    """Drains open connections on shutdown; leaves signals to its caller."""

    def __init__(self, config: uvicorn.Config) -> None:
        config.timeout_graceful_shutdown = END_SECONDS
        super().__init__(config)

    @property
    def connections(self) -> list[Any]:
        return list(self.server_state.connections)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone; uvicorn would take them, and send them again at the end."""
        yield

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain connections first; reject a request that does not arrive whole meanwhile."""
        for server in self.servers:
            for listening in server.sockets:
                with socket(fileno=os.dup(listening.fileno())) as same:
                    same.listen(0)  # no new connections while the queue is accepted
        await asyncio.sleep(DRAIN_SECONDS)
        for server in self.servers:
            server.close()
        for _ in range(round(GRACE_SECONDS / DRAIN_SECONDS)):
            if all(connection.is_whole() for connection in self.connections):
                break
            await asyncio.sleep(DRAIN_SECONDS)
        for connection in self.connections:
            if connection.cycle and not connection.is_whole():
                connection.end_if_late(0)
        await super().shutdown(sockets)
