"""Tokens of authorized clients, and the server's certificate with its key.

Requests without a token are rejected before they are read, over REST and gRPC.
"""

import hmac
import re
import ssl
import stat
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Container, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from . import logger
from .errors import RequestError

TOKEN = re.compile(rb"[!-~]{16,}")  # fewer characters can be guessed
SCHEME = b"bearer "
# Open to everyone: probes of a cluster send no token.
HEALTH = re.compile(r"/v2/health/(live|ready)|/v2/models/[^/]+(/versions/[^/]+)?/ready")
HEALTH_CALLS = "ServerLive", "ServerReady", "ModelReady", "Check", "Watch"
UNAUTHENTICATED = "expected a token of this server in the header Authorization, as Bearer TOKEN"


class SecretError(ValueError):
    """A file of secrets that is invalid; the message is one line."""


class ReloadableFile(ABC):
    """Files that are read again when they change; if they are invalid, the previous content stays.

    paths: the last one is secret. Raises SecretError.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths, self._warning = paths, ""
        self.contents: list[bytes] = []
        try:
            self._read()
        except OSError as error:
            raise SecretError(f"{error.filename or paths[0]}: {error.strerror}") from None

    def refresh(self) -> None:
        """Read the files if they have changed; logs a line if they are invalid."""
        warning = ""
        try:
            if self._read():
                logger.info("%s: read again", self.paths[0])
        except (SecretError, OSError) as error:
            warning = f"{error}; the previous content stays"
            if warning != self._warning:
                logger.warning(warning)
        self._warning = warning

    def _read(self) -> bool:
        check_private(self.paths[-1])
        contents = [path.read_bytes() for path in self.paths]
        if changed := contents != self.contents:
            self.load(contents)
            self.contents = contents
        return changed

    @abstractmethod
    def load(self, contents: list[bytes]) -> None:
        """Use the files' new contents. Raises SecretError."""


class Tokens(ReloadableFile):
    """Tokens of authorized clients: lines of a file, each of 16 or more printable characters."""

    def load(self, contents: list[bytes]) -> None:
        tokens = [line.strip() for line in contents[0].splitlines() if line.strip()]
        if not tokens or not all(map(TOKEN.fullmatch, tokens)):
            raise SecretError(
                f"{self.paths[0]}: expected a token a line, each of 16 or more printable "
                f"characters, got {'another line' if tokens else 'none'}; make one with: "
                "openssl rand -hex 32"
            )
        self._tokens = tokens

    def allow(self, fields: Sequence[bytes]) -> bool:
        """Whether the Authorization fields are one, with a token of these; in constant time."""
        if len(fields) != 1 or fields[0][: len(SCHEME)].lower() != SCHEME:
            return False
        actual = fields[0][len(SCHEME) :].strip()
        return sum(hmac.compare_digest(actual, token) for token in self._tokens) > 0


class Certificate(ReloadableFile):
    """A certificate's chain and its key, PEM; `contexts` get a renewed one too."""

    def __init__(self, *paths: Path) -> None:
        self.contexts: list[ssl.SSLContext] = []
        super().__init__(*paths)

    def load(self, _: list[bytes]) -> None:
        chain, key = self.paths
        for context in [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), *self.contexts]:
            try:
                context.load_cert_chain(chain, key, password=_no_password)
            except (ssl.SSLError, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                raise SecretError(
                    f"{chain}, {key}: expected a certificate and its key in PEM, "
                    f"got an error: {reason}"
                ) from None


def _no_password() -> str:
    raise ValueError("the key has a password")


def check_private(path: Path) -> None:
    """Raise SecretError for a file that everyone on the machine may read or write."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise SecretError(f"{path}: expected a file")
    if mode & stat.S_IRWXO:
        raise SecretError(
            f"{path}: expected a file that its owner and group alone may read, got mode "
            f"{stat.S_IMODE(mode):o}; run: chmod o= {path}"
        )


class AuthMiddleware:
    """ASGI middleware that rejects requests without a token.

    open_paths: served without one, as health is; reject: called for each rejected request.
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
    """Ends calls without a token before their message is read. reject: called for each."""

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
        fields = [text.encode() if isinstance(text, str) else text for text in fields]
        is_health = handler_call_details.method.rpartition("/")[2] in HEALTH_CALLS
        if is_health or self._tokens.allow(fields):
            return await continuation(handler_call_details)
        self._reject("grpc", RequestError(UNAUTHENTICATED, HTTPStatus.UNAUTHORIZED))
        return self._deny

    async def _abort(self, _: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED)
