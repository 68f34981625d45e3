"""The body of a request over REST, as it arrives, within limits."""

from starlette.types import Receive, Scope

from ..infer import LARGE, in_thread
from ..limits import IN_HAND, MB, Limits
from ..protocol.rest import inflate


class ClientGoneError(Exception):
    """The client has hung up before its request had arrived."""


class Body:
    """A body, counted among those in hand until the end of a `with` block."""

    def __init__(self, scope: Scope, limits: Limits) -> None:
        self._limits, self._counted = limits, 0
        self._headers = dict(scope["headers"])

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
                raise ClientGoneError
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
