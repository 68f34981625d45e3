"""HTTP/1.1 by uvicorn: bounds on size and time of a request, graceful shutdown."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from socket import socket
from typing import Any

import orjson
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from . import logger
from .rest import JSON

HEAD_BYTES = 64 * 1024  # of a request's line and headers, at most
DRAIN_SECONDS = 0.1  # to take the connections that the system has already made
GRACE_SECONDS = 2.0  # at most, for a request to arrive on a connection that is there
TICKS = 10  # of uvicorn's, in a second


class HttpProtocol(HttpToolsProtocol):
    """Rejects requests whose headers are too long, or which do not arrive whole in time."""

    _since: float | None  # when the request that is arriving began to
    _head_bytes = 0
    _in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first request."""
        super().connection_made(transport)
        self._since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Rejects a head of more than HEAD_BYTES."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._reject(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"expected at most {HEAD_BYTES:,} bytes of headers, got more",
                )

    def on_message_begin(self) -> None:
        """Starts the time for a request."""
        super().on_message_begin()
        self._since = self.loop.time()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Ends the head."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Ends the time for a request."""
        super().on_message_complete()
        self._since = None

    def end_if_late(self, seconds: float) -> None:
        """Close a connection whose request has not arrived whole within so many seconds."""
        if self._since is None or self.loop.time() - self._since <= seconds:
            return
        idle = self.cycle is None and not self._in_head  # has connected, and sent nothing
        answered = self.cycle is not None and self.cycle.response_complete and not self._in_head
        if idle or answered:
            self.transport.close()
        elif self._in_head or not self.cycle.response_started:
            self._reject(
                HTTPStatus.REQUEST_TIMEOUT,
                f"expected a whole request within {seconds:g} seconds, got a part of one",
            )

    def send_400_response(self, msg: str) -> None:
        """In JSON, as every error."""
        self._reject(HTTPStatus.BAD_REQUEST, f"expected a request of HTTP/1.1: {msg}")

    def _reject(self, status: HTTPStatus, message: str) -> None:
        if self.transport.is_closing():
            return
        self._since = None
        if self.cycle:  # whose body will not arrive
            self.cycle.scope["rejected"] = status, message  # type: ignore[typeddict-unknown-key]
        logger.warning("rejected with %d: %s", status, message)
        body = orjson.dumps({"error": message})
        fields = f"content-type: {JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + fields.encode() + body)
        self.transport.close()


class GracefulServer(uvicorn.Server):
    """Drains open connections on shutdown; leaves signals to whoever starts it.

    every_second: called so often.
    """

    def __init__(
        self, config: uvicorn.Config, every_second: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        super().__init__(config)
        self._every_second = every_second

    @property
    def connections(self) -> list[Any]:
        """Those that are open."""
        return list(self.server_state.connections)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone; uvicorn would take them, and send them again at the end."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._every_second and counter % TICKS == 0:
            await self._every_second()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain connections first, also those that have not yet sent a request."""
        for server in self.servers:
            for listening in server.sockets:
                with socket(fileno=os.dup(listening.fileno())) as same:
                    same.listen(0)  # takes nobody new while those who wait are taken
        await asyncio.sleep(DRAIN_SECONDS)
        for server in self.servers:
            server.close()
        for _ in range(round(GRACE_SECONDS / DRAIN_SECONDS)):
            if all(connection.cycle for connection in self.connections):
                break
            await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)
