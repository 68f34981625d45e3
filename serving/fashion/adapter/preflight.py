"""Checks before a server starts: ports, settings, and whether a model is packaged; one line each.

MLServer prints a stack trace if a port is in use, and starts if nothing is packaged.
"""

import json
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any

from ..packaged import MODEL_SETTINGS

PORTS = ("http_port", "grpc_port", "metrics_port")


def port_error(host: str, port: int, variable: str) -> str:
    """The error if a port cannot be bound, else "". variable: sets another port."""
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            return (
                f"port {port} of {host}: {getattr(error, 'strerror', None) or error}; "
                f"stop what listens there, or choose another: {variable}=…"
            )
    return ""


def check_start(root: Path, allow_load: bool, one_process: bool, settings: Any) -> None:
    """Exit in one line where a server could not serve.

    one_process: whether workers would get no requests; settings: of MLServer.
    """
    named = "MLSERVER_MODEL_NAME" in os.environ  # by KServe, for a model without settings
    if not (allow_load or named or any(root.rglob(MODEL_SETTINGS))):
        sys.exit(f"error: {root}: no model packaged; package them with: dvc repro")
    if one_process and settings.parallel_workers:
        sys.exit(
            f"error: MLServer's setting parallel_workers is {settings.parallel_workers}; "
            "expected 0: start more servers instead, each serves as many requests as the first"
        )
    for port in filter(None, (settings.http_port, settings.grpc_port)):  # 0 is any free one
        if len(equal := [name for name in PORTS if getattr(settings, name) == port]) > 1:
            sys.exit(
                f"error: MLServer's settings {', '.join(equal)} are {port}; expected different "
                f"ports: {' '.join(f'MLSERVER_{name.upper()}=…' for name in equal[1:])}"
            )
    for name in PORTS:
        error = port_error(settings.host, getattr(settings, name), f"MLSERVER_{name.upper()}")
        if error:
            sys.exit(f"error: {error}")


def outranked_variables(path: Path) -> list[str]:
    """A warning for each variable of MLServer's that a file of settings outranks."""
    settings = json.loads(path.read_bytes()) if path.exists() else {}
    actual = {
        name: os.environ.get(f"MLSERVER_{name.upper()}", str(settings[name])) for name in settings
    }
    return [
        f"MLSERVER_{name.upper()}={actual[name]} is ignored: {path.name} has {name}: {value}"
        for name, value in settings.items()
        if actual[name].lower() != str(value).lower()
    ]


def is_local(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def report_invalid_settings() -> None:
    """End the program in one line, not in a stack trace, for invalid settings of MLServer."""
    from pydantic import ValidationError  # noqa: PLC0415

    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (isinstance(error, ValidationError) and error.title == "Settings"):
            previous(kind, error, trace)
            return
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        message = f"error: MLServer's setting {name} is {first['input']!r}: {first['msg']}"
        print(message, file=sys.stderr)

    sys.excepthook = hook
