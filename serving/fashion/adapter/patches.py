"""What of MLServer is replaced.

MLServer creates its parts by the names in its modules, after it has read settings.json; by then
`install` has put others there. Everything else is subclassing or settings.
"""

import logging
from importlib import import_module
from importlib.metadata import version

from mlserver.logging import logger as mlserver_logger

from ..inference import logger as inference_logger
from .hosts import GrpcServer, MetricsServer, RestServer
from .logs import LogFormatter
from .options import OPTIONS
from .preflight import report_invalid_settings
from .repository import is_newer

TESTED = "1.7.1", "1.7.2rc1"  # whose private names the adapter relies on
VERSION = version("mlserver")

# Module and name in MLServer, what replaces it, and why, with MLServer's issue, if any.
PATCHES = (
    ("mlserver.server", "RESTServer", RestServer,
     "returns 500 or pydantic's messages for bad requests (1055), has no binary tensors (324)"
     " and no limits; its uvicorn cuts off open connections when it ends"),
    ("mlserver.server", "GRPCServer", GrpcServer,
     "reads raw tensors into lists (926), logs a stack for each bad request, and takes one"
     " call a turn of the event loop"),
    ("mlserver.metrics.server", "_NoSignalServer", MetricsServer,
     "means to leave signals to MLServer, by a method that uvicorn no longer calls: a signal"
     " would end the server before its requests have responses"),
    ("mlserver.logging", "ModelLoggerFormatter", LogFormatter,
     "writes JSON by putting texts between quotes: one with a quote breaks it"),
    ("mlserver.registry", "_is_newer", is_newer,
     "compares versions as text, so that v9 comes after v10 (783)"),
)  # fmt: skip


def install() -> None:
    """Put the replacements in place; an MLServer that was not tested is left as it is."""
    if VERSION not in TESTED:
        mlserver_logger.warning(
            f"MLServer {VERSION} is not one of those tested, {' and '.join(TESTED)}: its servers "
            "serve, without what docs/serving.md describes"
        )
        return
    for module, name, replacement, _ in PATCHES:
        setattr(import_module(module), name, replacement)
    OPTIONS.hosts_installed = True
    report_invalid_settings()
    inference_logger.parent = mlserver_logger
    inference_logger.setLevel(logging.INFO)
