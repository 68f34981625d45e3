"""Tokens of authorized clients, and the server's certificate with its key."""

import hmac
import re
import ssl
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from . import logger

TOKEN = re.compile(rb"[!-~]{16,}")  # fewer characters can be guessed
SCHEME = b"bearer "


class SecretError(ValueError):
    """A file that will not do; the message is one line that says why."""


class ReloadableFile(ABC):
    """Files that are read again when they change; what was read before stays where they are bad.

    paths: of them, the last one a secret. Raises SecretError.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths, self._warning = paths, ""
        self.contents: list[bytes] = []
        try:
            self._read()
        except OSError as error:
            raise SecretError(f"{error.filename or paths[0]}: {error.strerror}") from None

    def refresh(self) -> None:
        """Read what has changed; a line in the log where it will not do."""
        warning = ""
        try:
            if self._read():
                logger.info("%s: read again", self.paths[0])
        except (SecretError, OSError) as error:
            warning = f"{error}; what was read before stays"
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
        """Use what the files have now. Raises SecretError."""


class Tokens(ReloadableFile):
    """Of authorized clients: the lines of a file, each of 16 or more printable characters."""

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
        """Whether the Authorization fields of a request are one, with a token of these.

        Takes the same time wherever a wrong one differs.
        """
        if len(fields) != 1 or fields[0][: len(SCHEME)].lower() != SCHEME:
            return False
        given = fields[0][len(SCHEME) :].strip()
        return sum(hmac.compare_digest(given, token) for token in self._tokens) > 0


class Certificate(ReloadableFile):
    """A certificate's chain and its key, PEM; contexts that have it get a renewed one too."""

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
