"""MLServer's REST side: malformed requests refused in one sentence, patience at the end.

And the try-it page, at /demo: files that ask the models by the same routes as everyone.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from socket import socket
from typing import Any

import mlserver.rest.app
import mlserver.rest.server
import uvicorn
from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import StreamingResponse
from mlserver.errors import MLServerError
from mlserver.rest import RESTServer
from mlserver.rest.responses import Response, ServerSentEvent
from mlserver.types import InferenceRequest
from mlserver.utils import insert_headers
from starlette.responses import FileResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

from .contract import SAMPLES_FILE
from .express import Express
from .tensors import expected_datatype, expected_inputs, one_line, shown

logger = logging.getLogger("mlserver.fashion")
DRAIN_SECONDS = 0.1  # to take the connections that the system has already made
DEMO, DEMO_PATH = Path(__file__).parent.parent / "demo", "/demo"
GRACE_SECONDS = 2.0  # at most, for a request to arrive on a connection that is there


class PatientServer(mlserver.rest.server._NoSignalServer):
    """Hears out, when it has to end, those who have connected; others are refused meanwhile."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not: they are MLServer's, which uvicorn would take away, and send again at the end."""
        yield

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """As uvicorn has it, which hangs up on who has connected and not yet asked."""
        for server in self.servers:
            for listening in server.sockets:
                with socket(fileno=os.dup(listening.fileno())) as same:
                    same.listen(0)  # takes nobody new while those who wait are taken
        await asyncio.sleep(DRAIN_SECONDS)
        for server in self.servers:
            server.close()
        for _ in range(round(GRACE_SECONDS / DRAIN_SECONDS)):
            if all(connection.cycle for connection in self.server_state.connections):
                break
            await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)


class Rest(RESTServer):
    """Answers every malformed request with 400 and one sentence, and logs a line for each."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._app.add_exception_handler(RequestValidationError, _answer_malformed)
        self._app.add_exception_handler(MLServerError, _answer_refused)
        if DEMO.is_dir():  # which a copy of the models and their code alone lacks
            self._app.add_route("/", _to_demo)
            self._app.add_route(f"{DEMO_PATH}/{SAMPLES_FILE}", self._samples)
            self._app.mount(DEMO_PATH, StaticFiles(directory=DEMO, html=True))

    async def _samples(self, request: Request) -> Response | FileResponse:
        path = Path(self._settings.model_repository_root, "models", SAMPLES_FILE)
        if path.is_file():
            return FileResponse(path)
        sentence = f"expected {path.name} beside the models, got none; package them again"
        return _refuse(request.url.path, HTTPStatus.NOT_FOUND, sentence)

    def _get_config(self) -> uvicorn.Config:
        config, settings = super()._get_config(), self._settings
        if not (settings.root_path or settings.tracing_server or settings.cors_settings):
            config.app = Express(self._app, self._data_plane.answer, settings, _refuse)
        return config


async def _to_demo(_: Request) -> RedirectResponse:
    return RedirectResponse(f".{DEMO_PATH}/")


async def _answer_malformed(request: Request, error: RequestValidationError) -> Response:
    return _refuse(request.url.path, HTTPStatus.BAD_REQUEST, _sentence(error.errors()[0]))


async def _answer_refused(request: Request, error: MLServerError) -> Response:
    return _refuse(request.url.path, error.status_code, str(error))


def _refuse(path: str, status: int, sentence: str) -> Response:
    sentence = one_line(sentence)
    logger.warning("refused with %d: %s: %s", status, one_line(path), sentence)
    return Response({"error": sentence}, status)


def _sentence(error: dict[str, Any]) -> str:
    """What FastAPI found wrong with a body, in the words of the contract."""
    place, came = [str(part) for part in error["loc"][1:]], error.get("input")
    if error["type"] == "json_invalid":
        return f"expected a body in JSON, got an error: {error['ctx']['error']}"
    if place[-1:] == ["inputs"] and error["type"] == "missing":
        return expected_inputs(0)
    if place[-1:] == ["datatype"] and error["type"] == "enum":
        return expected_datatype(came)
    if error["type"] == "missing":
        return f"expected {'.'.join(place) or 'a body in JSON'}, got none"
    name = ".".join(place) or "the body"
    return f"expected another {name}, got {shown(came)}: {error['msg'].lower()}"


class Routes(mlserver.rest.app.Endpoints):
    """Refuses, before it begins a stream, what MLServer would break one off for, with 500."""

    async def infer_stream(
        self,
        raw_request: Request,
        payload: InferenceRequest,
        model_name: str,
        model_version: str | None = None,
    ) -> StreamingResponse:
        """The answer, as a stream of one event."""
        insert_headers(payload, dict(raw_request.headers))
        answer = await self._data_plane.infer(payload, model_name, model_version)
        event = ServerSentEvent(answer).encode()
        return StreamingResponse(iter([event]), media_type="text/event-stream")
