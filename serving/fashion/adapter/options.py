"""What a process has been asked for beyond MLServer's settings: read once, used by each host."""

import sys
from pathlib import Path
from typing import Any

from mlserver.errors import MLServerError

from ..inference.credentials import Certificate, SecretError, Tokens
from ..inference.handler import Observer
from ..inference.metrics import LOST, add_request
from ..inference.request_log import RequestLog
from ..inference.settings import PREFIX, ServerSettings, read_settings


class HostOptions:
    """observers: of each inference request; allow_load: models by request.

    settings: of this server; tokens, certificate: from the files that these name, if any;
    expected: the models that were to be loaded, by name and version; broken: settings that cannot
    be read, at the start; warnings: to be logged once the server starts;
    hosts_installed: whether the servers are those of hosts.py, which alone do all of this.
    """

    hosts_installed = False
    settings: ServerSettings
    tokens: Tokens | None = None
    certificate: Certificate | None = None

    def __init__(self) -> None:
        self.observers: list[Observer] = []
        self.allow_load = False
        self.expected: set[tuple[str, str]] = set()
        self.broken: set[Path] = set()
        self.warnings: list[str] = []
        self._is_configured = False

    def configure(self, allow_load: bool, metrics: bool, options: dict[str, Any]) -> None:
        """Read settings and the files that they name. Ends the program, in one line, for bad ones.

        Does so once: MLServer makes two repositories, of which it serves one.
        """
        if self._is_configured:
            return
        self.allow_load = allow_load
        if metrics:
            self.observers.append(add_request)
        self.settings = settings = read_settings(options)
        if not self.hosts_installed:
            if why := _unmet(settings):
                sys.exit(f"error: {why}")
            return
        try:
            if settings.token_file:
                self.tokens = Tokens(settings.token_file)
            if settings.tls_cert and settings.tls_key:
                self.certificate = Certificate(settings.tls_cert, settings.tls_key)
            if settings.request_log:
                share, size = settings.request_log_images, settings.request_log_mb
                self.observers.append(RequestLog(settings.request_log, share, size, LOST.inc).add)
        except SecretError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            sys.exit(f"error: FASHION_REQUEST_LOG is {settings.request_log}: {error.strerror}")
        self._is_configured = True

    def check_hosts(self) -> None:
        """Raise MLServerError where variables ask for what MLServer's own servers do not do."""
        settings = ServerSettings()  # type: ignore[call-arg]
        if not self.hosts_installed and (why := _unmet(settings)):
            raise MLServerError(why)


def _unmet(settings: ServerSettings) -> str:
    """What MLServer's own servers would leave out, and what to do; "" for nothing."""
    named = "token_file", "tls_cert", "request_log"
    asked = [PREFIX + name.upper() for name in named if getattr(settings, name)]
    if not asked:
        return ""
    return (
        f"{', '.join(asked)} is set, which MLServer's own servers ignore; expected "
        "fashion.repository.Repository as its setting model_repository_implementation, "
        "and a tested MLServer"
    )


OPTIONS = HostOptions()
