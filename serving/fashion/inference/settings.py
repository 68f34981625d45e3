"""Settings of the server, from variables of the environment: a log of requests, tokens, TLS."""

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "FASHION_"  # of the variables
ALIKE = 0.8  # of 1, from which on a variable is taken for a misspelt one


class ServerSettings(BaseSettings):
    """Variables FASHION_REQUEST_LOG and so on; what a file of settings has of them comes second.

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
    """The variables, then options of settings.json. Ends the program in one line for a bad one."""
    variables = {PREFIX + name.upper(): name for name in ServerSettings.model_fields}
    for name in os.environ.keys() - variables:
        if name.startswith(PREFIX) and (close := get_close_matches(name, variables, 1, ALIKE)):
            sys.exit(f"error: {name} is no setting; expected {close[0]}")
    given = {variables[name] for name in variables.keys() & os.environ.keys() if os.environ[name]}
    second = {name: value for name, value in options.items() if name not in given and value != ""}
    try:
        return ServerSettings(**second)
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(map(str, first["loc"]))
        place = f"settings.json: {name}" if name in second else PREFIX + name.upper()
        shown = f"{place} is {first['input']!r}: " if name else ""
        sys.exit(f"error: {shown}{first['msg'].removeprefix('Value error, ')}")
