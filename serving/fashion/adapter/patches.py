"""What of MLServer is replaced, and what of its private parts is relied on.

MLServer makes its parts by the names that they have in its own modules, after it has read
settings.json; by then `install` has put others there. Everything else is subclassing or settings.
"""

import inspect
import logging
from importlib import import_module
from pkgutil import resolve_name
from typing import Any, NamedTuple

from mlserver.logging import logger as mlserver_logger

from ..inference import logger as inference_logger
from .hosts import GrpcServer, MetricsServer, RestServer
from .logs import LogFormatter
from .options import OPTIONS
from .preflight import report_invalid_settings
from .repository import is_newer

TESTED = "1.7.1 and 1.7.2rc1"


class Patch(NamedTuple):
    """A name of MLServer's that gets another value. why: with their issue, where there is one."""

    module: str
    name: str
    by: Any
    why: str


PATCHES = (
    Patch("mlserver.server", "RESTServer", RestServer,
          "answers 500 or in pydantic's words to bad requests (1055), has no binary tensors (324)"
          " and no limits; its uvicorn ends by cutting off who has connected"),
    Patch("mlserver.server", "GRPCServer", GrpcServer,
          "reads raw tensors into lists (926), logs a stack for each bad request, and takes one"
          " call a turn of the event loop"),
    Patch("mlserver.metrics.server", "_NoSignalServer", MetricsServer,
          "means to leave signals to MLServer, by a method that uvicorn no longer calls: a signal"
          " would end the server before its requests are answered"),
    Patch("mlserver.logging", "ModelLoggerFormatter", LogFormatter,
          "writes JSON by putting texts between quotes: one with a quote breaks it"),
    Patch("mlserver.registry", "_is_newer", is_newer,
          "compares versions as text, so that v9 comes after v10 (783)"),
)  # fmt: skip

# The functions of MLServer that use each private name which the adapter relies on.
RELIED_ON = (
    ("mlserver.handlers.dataplane:DataPlane.__init__", "_model_registry"),
    ("mlserver.handlers.model_repository:ModelRepositoryHandlers.__init__", "_repository"),
    ("mlserver.handlers.model_repository:ModelRepositoryHandlers._to_item", "_get_state"),
    ("mlserver.rest.server:RESTServer.start", "_get_config"),
    ("mlserver.rest.server:RESTServer.stop", "_server"),
    ("mlserver.grpc.server:GRPCServer.start", "_create_server"),
    ("mlserver.grpc.server:GRPCServer.stop", "_server"),
    ("mlserver.grpc.server:GRPCServer._create_server", "_get_options"),
)


def check(patch: Patch) -> None:
    """Raise AttributeError or TypeError where a patch has no place, or does not fit it."""
    original = getattr(import_module(patch.module), patch.name)
    if inspect.isclass(original) and not issubclass(patch.by, original.__mro__[-2]):
        raise TypeError(f"{patch.by.__name__} is no {original.__mro__[-2].__name__}")
    parameters = inspect.signature(original).parameters.items()
    required = [name for name, parameter in parameters if parameter.default is parameter.empty]
    if list(inspect.signature(patch.by).parameters)[: len(required)] != required:
        raise TypeError(f"{patch.by.__name__} does not take {', '.join(required)}")


def install() -> None:
    """Put the replacements in place; where one does not fit, MLServer goes on as it is."""
    try:
        for patch in PATCHES:
            check(patch)
        for function, name in RELIED_ON:
            if name not in resolve_name(function).__code__.co_names:
                raise AttributeError(f"{function} has no {name}")
    except (AttributeError, TypeError, ImportError) as error:
        mlserver_logger.warning(
            f"this MLServer is not one of those tested, {TESTED}: {error}; its servers serve, "
            "without what docs/serving.md says of these"
        )
        return
    for patch in PATCHES:
        setattr(import_module(patch.module), patch.name, patch.by)
    OPTIONS.hosts_installed = True
    report_invalid_settings()
    inference_logger.parent = mlserver_logger
    inference_logger.setLevel(logging.INFO)
