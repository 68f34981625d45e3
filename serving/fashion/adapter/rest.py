"""REST: MLServer's own server and routes, with application.py in front for inference.

The try-it page, at /demo, is a folder of files that ask the models by the same routes as everyone.
"""

import logging
from http import HTTPStatus
from pathlib import Path
from typing import Any

import uvicorn
from fastapi.exceptions import RequestValidationError
from mlserver.errors import MLServerError
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.rest import RESTServer
from mlserver.rest.logging import disable_health_access_logs
from mlserver.settings import Settings
from mlserver.types import RepositoryIndexRequest
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ..contract import SAMPLES_FILE
from ..inference.http_protocol import GracefulServer, HttpProtocol
from ..inference.rest_app import RestApplication, refusal
from .access import ACCESS, Gate
from .models import Models
from .preflight import is_local
from .repository import Handlers

logger = logging.getLogger("mlserver.fashion")
DEMO, DEMO_PATH = Path(__file__).parents[2] / "demo", "/demo"
# The page asks for a token, so it has to be shown without one; what it shows is not.
OPEN_PATHS = frozenset(
    ["/", DEMO_PATH, f"{DEMO_PATH}/", *(f"{DEMO_PATH}/{path.name}" for path in DEMO.glob("*"))]
)


class RestServer(RESTServer):
    """MLServer's REST server, which RestApplication takes inference from."""

    def __init__(
        self,
        settings: Settings,
        data_plane: DataPlane,
        model_repository_handlers: ModelRepositoryHandlers,
    ) -> None:
        handlers = model_repository_handlers
        self._models = Models(data_plane, handlers._repository.observers)
        self._handlers = Handlers(handlers._repository, handlers._model_registry)
        super().__init__(settings, data_plane, self._handlers)
        for error in (RequestValidationError, MLServerError, HTTPException):
            self._app.add_exception_handler(error, _send_error)
        self._app.router.routes[:0] = [
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v2/models/{name}/ready", self._model_ready),
            Route("/v2/models/{name}/versions/{version}/ready", self._model_ready),
            Route("/v2/repository/index", self._index, methods=["POST"]),
        ]
        if DEMO.is_dir():  # which a copy of the models and their code alone lacks
            self._app.add_route("/", _to_demo)
            self._app.add_route(f"{DEMO_PATH}/{SAMPLES_FILE}", self._samples)
            self._app.mount(DEMO_PATH, StaticFiles(directory=DEMO, html=True))
        self._announced = False

    def _get_config(self) -> uvicorn.Config:
        config, settings = super()._get_config(), self._settings
        app: ASGIApp = RestApplication(self._app, self._models, settings)
        if ACCESS.tokens:
            app = Gate(app, ACCESS.tokens, OPEN_PATHS, self._models.observers)
        if settings.tracing_server:
            app = OpenTelemetryMiddleware(app)
        if settings.cors_settings is not None:
            app = CORSMiddleware(app, **settings.cors_settings.model_dump())
        config.app, config.http, config.ws = app, HttpProtocol, "none"
        if ACCESS.certificate:
            config.ssl_certfile, config.ssl_keyfile = map(str, ACCESS.certificate.paths)
            config.load()
            ACCESS.certificate.contexts = [config.ssl]
        return config

    async def start(self) -> None:
        """Listen, until the server has to end."""
        self._server = GracefulServer(self._get_config(), self._look_around)
        if not self._settings.debug:
            disable_health_access_logs()
        if not (ACCESS.tokens or is_local(self._settings.host)):
            logger.warning(
                "everyone who reaches %s may ask: name a file of tokens, FASHION_TOKEN_FILE",
                self._settings.host,
            )
        logger.info("HTTP server running on %s", self._url)
        await self._server.serve()

    @property
    def _url(self) -> str:
        scheme = "https" if ACCESS.certificate else "http"
        return f"{scheme}://{self._settings.host}:{self._settings.http_port}"

    async def _look_around(self) -> None:
        ACCESS.refresh()
        seconds = await self._models.request_seconds()
        for connection in self._server.connections if seconds else ():
            connection.end_if_late(seconds)
        if not self._announced and await self._models.are_ready():
            self._announced = True
            names, page = ", ".join(await self._models.names()), ""
            if DEMO.is_dir():
                page = self._url.replace(self._settings.host, "localhost")
                page = f"; try them at {page}{DEMO_PATH}"
            grpc = f"{self._settings.host}:{self._settings.grpc_port}"
            logger.info("Serving %s: REST %s, gRPC %s%s", names, self._url, grpc, page)

    async def _live(self, _: Request) -> JSONResponse:
        return JSONResponse({"live": True})

    async def _ready(self, _: Request) -> JSONResponse:
        return _readiness({}, await self._models.are_ready())

    async def _model_ready(self, request: Request) -> JSONResponse:
        name, version = request.path_params["name"], request.path_params.get("version", "")
        return _readiness({"name": name}, await self._models.is_ready(name, version))

    async def _index(self, request: Request) -> JSONResponse:
        try:
            content = RepositoryIndexRequest.model_validate_json(await request.body() or b"{}")
        except ValueError:
            return refusal(request.url.path, 400, 'expected a body like {"ready": true}, or none')
        index = await self._handlers.index(content)
        return JSONResponse(index.model_dump(mode="json", exclude_none=True))

    async def _samples(self, request: Request) -> FileResponse | JSONResponse:
        path = Path(self._settings.model_repository_root, "models", SAMPLES_FILE)
        if path.is_file():
            return FileResponse(path)
        sentence = f"expected {path.name} beside the models, got none; package them again"
        return refusal(request.url.path, HTTPStatus.NOT_FOUND, sentence)


def _readiness(content: dict[str, Any], ready: bool) -> JSONResponse:
    return JSONResponse(content | {"ready": ready}, HTTPStatus.OK if ready else 400)


async def _to_demo(_: Request) -> RedirectResponse:
    return RedirectResponse(f".{DEMO_PATH}/")


async def _send_error(request: Request, error: Exception) -> JSONResponse:
    status, sentence = getattr(error, "status_code", 400), str(error)
    if isinstance(error, RequestValidationError):
        sentence = "expected a request as /v2/docs/dataplane.json describes it"
    elif isinstance(error, HTTPException):
        allowed = (error.headers or {}).get("Allow")
        what = f"{allowed} of this path" if allowed else "a path of /v2/docs/dataplane.json"
        sentence = f"expected {what}, got {request.method} {request.url.path}"
    return refusal(request.url.path, status, sentence, getattr(error, "headers", None))
