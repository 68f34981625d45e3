"""MLServer's servers of REST, gRPC and metrics, with the applications of inference/ in them.

The try-it page, at /demo, is a folder of files that use the same routes as every client.
"""

import os
from http import HTTPStatus
from pathlib import Path
from typing import Any

import grpc
import uvicorn
from fastapi.openapi.docs import get_swagger_ui_html
from mlserver.errors import MLServerError
from mlserver.grpc import GRPCServer, model_repository_pb2
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.interceptors import LoggingInterceptor
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.model import MLModel
from mlserver.rest import RESTServer
from mlserver.rest.openapi import get_openapi_schema
from mlserver.settings import Settings
from mlserver.tracing import get_tracer_provider
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..contract import SAMPLES_FILE
from ..inference import logger
from ..inference.credentials import HEALTH_CALLS, AuthInterceptor, AuthMiddleware, Certificate
from ..inference.grpc_server import GrpcServers, GrpcService
from ..inference.handler import Handler
from ..inference.http_protocol import GracefulServer, HttpProtocol
from ..inference.rest_app import RestApp, error_response, send_error
from .foreign import serve
from .logs import share_handlers
from .options import OPTIONS
from .preflight import is_local
from .repository import RegistryModels, read_settings_file

DEMO, DEMO_PATH = Path(__file__).parents[2] / "demo", "/demo"
# The page prompts for a token, so its files are served without one.
OPEN_PATHS = frozenset(
    ["/", DEMO_PATH, f"{DEMO_PATH}/", *(f"{DEMO_PATH}/{path.name}" for path in DEMO.glob("*"))]
)
REPOSITORY_SERVICE = "inference.model_repository.ModelRepositoryService"


class Host:
    """What the REST and the gRPC server share: the handler of inference."""

    def __init__(
        self,
        settings: Settings,
        data_plane: DataPlane,
        model_repository_handlers: ModelRepositoryHandlers,
    ) -> None:
        settings.host = host = settings.host.strip("[]")  # brackets of an IPv6 address
        self._host = f"[{host}]" if ":" in host else host
        super().__init__(settings, data_plane, model_repository_handlers)  # type: ignore[call-arg]
        self._models = RegistryModels(data_plane, model_repository_handlers)
        self._handler = Handler(self._models, OPTIONS.observers)


class RestServer(Host, RESTServer):
    """Serves RestApp, with MLServer's application as the fallback for its documentation."""

    _is_announced = False
    _replaced = frozenset[str]()

    def _get_config(self) -> uvicorn.Config:
        config, settings = super()._get_config(), self._settings
        for error in (MLServerError, HTTPException):
            self._app.add_exception_handler(error, send_error)
        # MLServer's other routes of inference would bypass limits, checks and log.
        self._app.router.routes = [
            route
            for route in self._app.routes
            if not getattr(route, "path", "").endswith(("/generate", "_stream"))
        ]
        routes = [*self._page(), *_docs(settings.root_path)]
        app: ASGIApp = RestApp(self._handler, routes, self._app, bool(settings.gzip_enabled))
        if OPTIONS.tokens:
            app = AuthMiddleware(app, OPTIONS.tokens, OPEN_PATHS, self._handler.reject)
        if settings.tracing_server:
            app = OpenTelemetryMiddleware(
                app,
                excluded_urls="/v2/health/|/ready$",
                tracer_provider=get_tracer_provider(settings),
                exclude_spans=["receive", "send"],
            )
        if settings.cors_settings is not None:
            app = CORSMiddleware(app, **settings.cors_settings.model_dump())
        config.app, config.http, config.ws = app, HttpProtocol, "none"
        config.callback_notify, config.timeout_notify = self._housekeeping, 0  # each second
        share_handlers()
        if OPTIONS.certificate:
            use_certificate(config, OPTIONS.certificate)
        return config

    def _page(self) -> list[BaseRoute]:
        if not DEMO.is_dir():  # a copy without the page
            return []
        return [
            Route("/", RedirectResponse(f".{DEMO_PATH}/")),
            Route(f"{DEMO_PATH}/{SAMPLES_FILE}", self._samples),
            Mount(DEMO_PATH, StaticFiles(directory=DEMO, html=True)),
        ]

    async def start(self) -> None:
        self._server = GracefulServer(self._get_config())
        for warning in OPTIONS.warnings:
            logger.warning(warning)
        if not (OPTIONS.tokens or is_local(self._settings.host)):
            logger.warning(
                "no token is required by %s: set FASHION_TOKEN_FILE to a file of tokens",
                self._settings.host,
            )
        logger.info("HTTP server running on %s", self._url)
        await self._server.serve()

    async def add_custom_handlers(self, model: MLModel) -> MLModel:
        """Serve a model that is about to be loaded."""
        model = await super().add_custom_handlers(model)
        vars(model)["settings_file"] = read_settings_file(model)
        serve(model)
        return model

    @property
    def _url(self) -> str:
        scheme = "https" if OPTIONS.certificate else "http"
        return f"{scheme}://{self._host}:{self._settings.http_port}"

    async def _housekeeping(self) -> None:
        try:
            for file in (OPTIONS.tokens, OPTIONS.certificate):
                if file:
                    file.refresh()
            await self._end_late_requests()
            await self._announce()
        except Exception:  # which would end the server
            logger.exception("housekeeping failed")

    async def _end_late_requests(self) -> None:
        seconds = await self._models.request_seconds()
        for connection in self._server.connections if seconds else ():
            connection.end_if_late(seconds)

    async def _announce(self) -> None:
        """Log once that all models are ready, with the URLs, and each model whose files changed."""
        replaced = await self._models.replaced()
        for name in replaced.keys() - self._replaced:
            logger.warning("%s: %s", name, replaced[name])
        self._replaced = frozenset(replaced)
        if not self._is_announced and await self._models.are_ready():
            self._is_announced = True
            names, page = ", ".join(await self._models.names()), ""
            if DEMO.is_dir():
                page = f"; try them at {self._url.replace(self._host, 'localhost')}{DEMO_PATH}"
            grpc_url = f"{self._host}:{self._settings.grpc_port}"
            logger.info("Serving %s: REST %s, gRPC %s%s", names, self._url, grpc_url, page)

    async def _samples(self, request: Request) -> Response:
        path = Path(self._settings.model_repository_root, "models", SAMPLES_FILE)
        if path.is_file():
            return FileResponse(path)
        message = f"expected {path.name} in the folder of models, got none; package them again"
        return error_response(request.url.path, HTTPStatus.NOT_FOUND, message)


def use_certificate(config: uvicorn.Config, certificate: Certificate) -> None:
    """Use TLS with it, renewed or not."""
    config.ssl_certfile, config.ssl_keyfile = map(str, certificate.paths)
    config.load()
    if config.ssl:
        certificate.contexts.append(config.ssl)


def _docs(prefix: str) -> list[BaseRoute]:
    """MLServer's pages of documentation under the prefix of a proxy, if there is one."""
    schema = "/v2/docs/dataplane.json"

    async def page(_: Request) -> Response:
        return get_swagger_ui_html(openapi_url=prefix + schema, title="MLServer API Docs")

    async def openapi(_: Request) -> Response:
        return JSONResponse(get_openapi_schema() | {"servers": [{"url": prefix}]})

    return [Route("/v2/docs", page), Route(schema, openapi)] if prefix else []


class GrpcServer(Host, GRPCServer):
    """Serves GrpcService."""

    _is_stopping = False

    async def stop(self, sig: int | None = None) -> None:
        """End when all calls have their response; at the second signal, at once."""
        if self._is_stopping:
            logger.warning("a second signal: ended at once")
            os._exit(1)
        self._is_stopping = True
        await super().stop(sig)

    def _create_server(self) -> GrpcServers:
        settings = self._settings
        interceptors: list[grpc.aio.ServerInterceptor] = []
        if OPTIONS.tokens:
            interceptors.append(AuthInterceptor(OPTIONS.tokens, self._handler.reject))
        if settings.debug:
            interceptors.append(LoggingInterceptor())
        if settings.tracing_server:
            provider = get_tracer_provider(settings)
            served = filters.negate(filters.any_of(*map(filters.method_name, HEALTH_CALLS)))
            interceptors.append(aio_server_interceptor(tracer_provider=provider, filter_=served))
        self._server = GrpcServers(
            GrpcService(self._handler, pb, {REPOSITORY_SERVICE: model_repository_pb2}),
            f"{self._host}:{settings.grpc_port}",
            interceptors,
            self._get_options(),
            OPTIONS.certificate,
        )
        return self._server


class MetricsServer(GracefulServer):
    """The server of the metrics, which requires a token as the others do, unless it is open."""

    def __init__(self, config: uvicorn.Config) -> None:
        settings = OPTIONS.settings
        if OPTIONS.tokens and not settings.open_metrics:
            app: Any = config.app
            config.app = AuthMiddleware(app, OPTIONS.tokens)
            if not settings.metrics_tls:
                logger.warning(
                    "tokens are sent unencrypted to the port of the metrics: set FASHION_TLS_CERT, "
                    "FASHION_TLS_KEY and FASHION_METRICS_TLS=true"
                )
        if settings.metrics_tls and OPTIONS.certificate:
            use_certificate(config, OPTIONS.certificate)
        config.http = HttpProtocol
        share_handlers()
        super().__init__(config)
