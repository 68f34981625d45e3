"""What a server is asked for beside MLServer's own settings: a log of requests, tokens, TLS."""

import os
import sys
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "FASHION_"  # of the variables


class ServerSettings(BaseSettings):
    """Variables FASHION_REQUEST_LOG and so on; what settings.json has of them comes second.

    request_log: a folder; request_log_images: the share of requests whose pixels it has, 0 to 1;
    request_log_mb: MiB of all its files; token_file: who may ask, a token a line; open_metrics: to
    everyone; tls_cert, tls_key: PEM files, of the certificate's chain and its key.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    request_log: Path | None = None
    request_log_images: float = Field(0.01, ge=0, le=1)
    request_log_mb: int = Field(1024, ge=1)
    token_file: Path | None = None
    open_metrics: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _check_pair(self) -> "ServerSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(f"expected {PREFIX}TLS_CERT and {PREFIX}TLS_KEY, got one of them")
        return self


def read_settings(options: dict[str, Any]) -> ServerSettings:
    """The variables and what settings.json has. Ends the program, in one line, for a wrong one."""
    second = {k: v for k, v in options.items() if PREFIX + k.upper() not in os.environ}
    try:
        return ServerSettings(**second)
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(str(part).upper() for part in first["loc"])
        place = f"{PREFIX}{name} is {first['input']!r}: " if name else ""
        sys.exit(f"error: {place}{first['msg'].removeprefix('Value error, ')}")
