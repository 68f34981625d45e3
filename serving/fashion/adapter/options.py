"""Settings of the servers beyond MLServer's: request log, tokens, TLS. Read once a process."""

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mlserver.errors import MLServerError
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ..inference.credentials import Certificate, SecretError, Tokens
from ..inference.handler import Observer
from ..inference.metrics import LOST, add_request
from ..inference.request_log import RequestLog

PREFIX = "FASHION_"  # of the variables
SIMILARITY = 0.8  # of 1, from which on a variable counts as misspelt


class ServerSettings(BaseSettings):
    """Variables FASHION_REQUEST_LOG and so on, which outrank the same options of settings.json.

    request_log: a folder; request_log_images: the share of requests whose inputs it has, 0 to 1;
    request_log_mb: MiB of all its files; token_file: of authorized clients, a token a line;
    open_metrics: to everyone; tls_cert, tls_key: PEM files, of the certificate's chain and its key;
    metrics_tls: whether the metrics use them too.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    request_log: Path | None = None
    request_log_images: float = Field(0.01, ge=0, le=1)
    request_log_mb: int = Field(1024, ge=1)
    token_file: Path | None = None
    open_metrics: bool = False
    metrics_tls: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _check_pair(self) -> "ServerSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(f"expected {PREFIX}TLS_CERT and {PREFIX}TLS_KEY, got one of them")
        if self.metrics_tls and self.tls_cert is None:
            raise ValueError(f"expected {PREFIX}TLS_CERT with {PREFIX}METRICS_TLS, got none")
        return self


def read_settings(options: dict[str, Any]) -> ServerSettings:
    """The variables, then options of settings.json. Exits in one line for an invalid one."""
    variables = {PREFIX + name.upper(): name for name in ServerSettings.model_fields}
    for name in os.environ.keys() - variables:
        if name.startswith(PREFIX) and (close := get_close_matches(name, variables, 1, SIMILARITY)):
            sys.exit(f"error: {name} is not a setting; expected {close[0]}")
    from_env = {field for name, field in variables.items() if os.environ.get(name)}
    second = {name: v for name, v in options.items() if name not in from_env and v != ""}
    try:
        return ServerSettings(**second)
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(map(str, first["loc"]))
        place = f"settings.json: {name}" if name in second else PREFIX + name.upper()
        prefix = f"{place} is {first['input']!r}: " if name else ""
        sys.exit(f"error: {prefix}{first['msg'].removeprefix('Value error, ')}")


class HostOptions:
    """State of the process. observers: of each inference request; allow_load: by request.

    settings: of this server; tokens, certificate: from the files in `settings`; expected: name and
    version of each model to be loaded, or the path of settings that could not be read, and "";
    warnings: to log once the server starts; hosts_installed: whether the servers of hosts.py run.
    """

    hosts_installed = False
    settings: ServerSettings
    tokens: Tokens | None = None
    certificate: Certificate | None = None

    def __init__(self) -> None:
        self.observers: list[Observer] = []
        self.allow_load = False
        self.expected: set[tuple[str, str]] = set()
        self.warnings: list[str] = []

    def configure(self, allow_load: bool, metrics: bool, options: dict[str, Any]) -> None:
        """Read settings and the files that they name. Exits in one line for invalid ones.

        Once: MLServer creates two repositories, of which it serves one.
        """
        if hasattr(self, "settings"):
            return
        self.allow_load = allow_load
        if metrics:
            self.observers.append(add_request)
        self.settings = settings = read_settings(options)
        if not self.hosts_installed:
            if why := _ignored(settings):
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

    def check_hosts(self) -> None:
        """Raise MLServerError for variables that MLServer's servers, if they run, would ignore."""
        settings = ServerSettings()  # type: ignore[call-arg]
        if not self.hosts_installed and (why := _ignored(settings)):
            raise MLServerError(why)


def _ignored(settings: ServerSettings) -> str:
    """The error for settings that MLServer's servers would ignore; "" for none."""
    named = "token_file", "tls_cert", "request_log"
    set_here = [PREFIX + name.upper() for name in named if getattr(settings, name)]
    if not set_here:
        return ""
    return (
        f"{', '.join(set_here)} is set, which MLServer's servers ignore; expected "
        "fashion.repository.Repository as its setting model_repository_implementation, "
        "and a tested MLServer"
    )


OPTIONS = HostOptions()
