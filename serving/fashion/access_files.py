"""Files that let someone in, or prove who the server is: tokens, a certificate and its key."""

import hmac
import logging
import ssl
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

logger = logging.getLogger("mlserver.fashion")
SHORTEST = 16  # characters of a token: fewer can be guessed
SCHEME = b"bearer "


class SecretError(ValueError):
    """A file that will not do; the message is one line that says why."""


class Watched:
    """Files that are read again when they change; what was read before stays where they are bad.

    paths: of them; read: them, raising SecretError, OSError.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], None]) -> None:
        self._paths, self._read, self._warning = paths, read, ""
        try:
            self._seen = self._state()
            read()
        except OSError as error:
            raise SecretError(f"{error.filename or paths[0]}: {error.strerror}") from None

    def refresh(self) -> None:
        """Read what has changed; a line in the log where it will not do."""
        try:
            state = self._state()
            if state == self._seen:
                return
            self._seen = state
            self._read()
            self._warning = ""
            logger.info("%s: read again", self._paths[0])
        except (SecretError, OSError) as error:
            if str(error) != self._warning:
                logger.warning("%s; what was read before stays", error)
            self._warning = str(error)
            if isinstance(error, OSError):
                self._seen = []  # whatever comes in its place is new

    def _state(self) -> list[tuple[int, int, int]]:
        found = [path.stat() for path in self._paths]
        return [(at.st_mtime_ns, at.st_ino, at.st_size) for at in found]


class Tokens:
    """Who may ask: the lines of a file, a token each, of 16 or more printable characters."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens: list[bytes] = []
        self.refresh = Watched([path], self._read).refresh

    def allow(self, fields: Sequence[bytes]) -> bool:
        """Whether the Authorization fields of a request are one, with a token of these.

        Takes the same time wherever a wrong one differs.
        """
        if len(fields) != 1 or fields[0][: len(SCHEME)].lower() != SCHEME:
            return False
        given = fields[0][len(SCHEME) :].strip()
        return sum(hmac.compare_digest(given, token) for token in self._tokens) > 0

    def _read(self) -> None:
        check_private(self._path)
        tokens = self._path.read_bytes().split(b"\n")
        tokens = [token.strip() for token in tokens if token.strip()]
        for token in tokens:
            if len(token) < SHORTEST or not token.isascii() or b" " in token:
                raise SecretError(
                    f"{self._path}: expected a token a line, each of {SHORTEST} or more printable "
                    "characters, got another line; make one with: openssl rand -hex 32"
                )
        if not tokens:
            raise SecretError(f"{self._path}: expected a token a line, got none")
        self._tokens = tokens


class Certificate:
    """A certificate's chain and its key, PEM; contexts that have it get a renewed one too."""

    def __init__(self, chain: Path, key: Path) -> None:
        self.chain, self.key = chain, key
        self._contexts: list[ssl.SSLContext] = []
        self.refresh = Watched([chain, key], self._read).refresh

    def serve(self, context: ssl.SSLContext) -> None:
        """Have a server's context present it, now and after each renewal."""
        self._contexts.append(context)

    @property
    def pair(self) -> tuple[bytes, bytes]:
        """The key and the chain, as gRPC has them."""
        return self._pair

    def _read(self) -> None:
        check_private(self.key)
        for context in [ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), *self._contexts]:
            try:
                context.load_cert_chain(self.chain, self.key, password=_no_password)
            except (ssl.SSLError, ValueError) as error:
                reason = getattr(error, "reason", None) or error
                raise SecretError(
                    f"{self.chain}, {self.key}: expected a certificate and its key in PEM, "
                    f"got an error: {reason}"
                ) from None
        self._pair = self.key.read_bytes(), self.chain.read_bytes()


def _no_password() -> str:
    raise ValueError("the key has a password")


def check_private(path: Path) -> None:
    """Raise SecretError for a file that everyone on the machine may read or write."""
    if not path.is_file():
        raise SecretError(f"{path}: expected a file")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IRWXO:
        raise SecretError(
            f"{path}: expected a file that its owner and group alone may read, got mode {mode:o}; "
            f"run: chmod o= {path}"
        )
