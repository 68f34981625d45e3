"""What MLServer leaves open, closed from outside; settings.json names Repository, which brings it.

MLServer makes its parts by the names they have in its own modules, after it has read settings.json.
Subclasses of them take their places here, so that `mlserver start` itself starts them: what serves
models, below, and what speaks over_rest.py and over_grpc.py.
"""

import logging
import os
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace

import grpc
import mlserver.grpc.server
import mlserver.metrics.server
import mlserver.registry
import mlserver.rest.app
import mlserver.rest.server
import mlserver.server
from mlserver.errors import MLServerError, ModelNotFound, ModelNotReady
from mlserver.grpc.utils import STATUS_CODE_MAPPING
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.model import MLModel
from mlserver.repository import SchemalessModelRepository
from mlserver.repository.repository import DEFAULT_MODEL_SETTINGS_FILENAME as MODEL_SETTINGS
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse, MetadataModelResponse, State
from mlserver.utils import extract_headers, generate_uuid
from prometheus_client import Counter, Summary

from .express import Answer
from .integrity import STRICT, UnfitModelError
from .over_grpc import Counting, Grpc, Servicer, in_one_line
from .over_rest import PatientServer, Rest, Routes
from .tensors import Question


class Repository(SchemalessModelRepository):
    """A folder of models, in which nothing is loaded or unloaded by request unless allowed.

    root: the folder; allow_load: what settings.json says of it.
    """

    allow_load = False

    def __init__(self, root: str, allow_load: bool = False) -> None:
        super().__init__(root)
        Repository.allow_load = allow_load


class Handlers(ModelRepositoryHandlers):
    """Loads and unloads models by request only where settings.json allows it."""

    async def load(self, name: str) -> bool:
        """Load a model, or a new version of it. Raises MLServerError, 403, or 409 if unfit."""
        self._check("load")
        strict = STRICT.set(True)
        try:
            return await super().load(name)
        except UnfitModelError as error:
            raise MLServerError(f"{name} is not loaded: {error}", HTTPStatus.CONFLICT) from None
        finally:
            STRICT.reset(strict)

    async def unload(self, name: str) -> bool:
        """Unload all versions of a model. Raises MLServerError, 403."""
        self._check("unload")
        return await super().unload(name)

    async def _get_state(self, model_settings: ModelSettings) -> State:
        """Of the version that is asked about, where MLServer takes the newest one's."""
        with suppress(ModelNotFound):
            model = await self._model_registry.get_model(
                model_settings.name, model_settings.version
            )
            return State.READY if model.ready else State.UNAVAILABLE
        return State.UNAVAILABLE

    def _check(self, what: str) -> None:
        if not Repository.allow_load:
            raise MLServerError(
                f"expected no request to {what} models: settings.json does not allow it "
                '(model_repository_implementation_args: {"allow_load": true})',
                HTTPStatus.FORBIDDEN,
            )


class Plane(DataPlane):
    """Says ready when every model of the repository is, and there is one."""

    async def ready(self) -> bool:
        """Whether all models are loaded, those included whose settings are broken."""
        models = list(await self._model_registry.get_models())
        root = Path(self._settings.model_repository_root)
        expected = len(list(root.rglob(MODEL_SETTINGS)))
        return len(models) >= max(expected, 1) and all(model.ready for model in models)

    async def model_ready(self, name: str, version: str | None = None) -> bool:
        """As MLServer has it; over gRPC, a version that is not given is "" rather than None."""
        return await super().model_ready(name, version or None)

    async def model_metadata(self, name: str, version: str | None = None) -> MetadataModelResponse:
        """As MLServer has it."""
        return await super().model_metadata(name, version or None)

    async def infer(
        self, payload: InferenceRequest, name: str, version: str | None = None
    ) -> InferenceResponse:
        """As MLServer has it, which would count requests for any name that is asked for."""
        await self._model_registry.get_model(name, version or None)
        return await super().infer(payload, name, version or None)

    async def answer(self, question: Question) -> Answer | None:
        """As `infer` does, of arrays rather than of MLServer's types; None if a model cannot."""
        asked = question.model, question.version or None
        model = await self._model_registry.get_model(*asked)
        if not hasattr(model, "answer"):  # by name: MLServer loads a runtime's module once more
            return None
        duration, failures, successes = self._counters(*asked)
        with duration.time(), failures.count_exceptions():
            if not model.ready:
                raise ModelNotReady(*asked)
            outputs = await model.answer(question)
        successes.inc()
        told = SimpleNamespace(id=question.id, parameters=None)
        if told.id is None:
            told.id = generate_uuid()
        self._inference_middleware.response_middleware(told, model.settings)
        return Answer(model.name, model.version, told.id, outputs, extract_headers(told) or {})

    @cache  # noqa: B019 (there is one Plane, as long as the server)
    def _counters(self, name: str, version: str | None) -> tuple[Summary, Counter, Counter]:
        return (
            self._ModelInferRequestDuration.labels(name, version),
            self._ModelInferRequestFailure.labels(name, version),
            self._ModelInferRequestSuccess.labels(name, version),
        )


def _is_newer(one: MLModel, other: MLModel) -> int:
    """Above 0 if the first has the higher number: v10 comes after v9."""
    return _number(one) - _number(other)


def _number(model: MLModel) -> int:
    digits = (model.version or "").removeprefix("v")
    return int(digits) if digits.isdecimal() else -1


def install() -> None:
    """Put the parts above in the places of MLServer's own."""
    mlserver.registry._is_newer = _is_newer
    mlserver.server.DataPlane = Plane
    mlserver.server.ModelRepositoryHandlers = Handlers
    mlserver.server.RESTServer = Rest
    mlserver.server.GRPCServer = Grpc
    mlserver.rest.server._NoSignalServer = PatientServer
    mlserver.metrics.server._NoSignalServer = PatientServer
    mlserver.rest.app.Endpoints = Routes
    mlserver.grpc.server.InferenceServicer = Servicer
    mlserver.grpc.server.PromServerInterceptor = Counting
    STATUS_CODE_MAPPING[HTTPStatus.FORBIDDEN] = grpc.StatusCode.PERMISSION_DENIED
    STATUS_CODE_MAPPING[HTTPStatus.CONFLICT] = grpc.StatusCode.FAILED_PRECONDITION
    logging.getLogger("mlserver.grpc").addFilter(in_one_line)
    # Threads that wake up, as gRPC's do several times a request, let the running one go on: on two
    # cores a fifth more requests over gRPC.
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


install()
