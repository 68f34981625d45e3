"""What MLServer has loaded, as the core wants it, and what it counts of requests."""

import time
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

from mlserver.errors import MLServerError, ModelNotReady
from mlserver.handlers import DataPlane
from mlserver.utils import extract_headers
from prometheus_client import Counter, Summary

from ..inference.exchange import Exchange, Observer
from ..inference.infer import ServedModel, infer
from ..inference.messages import InferRequest, InferResponse, RequestError
from ..packaged import MODEL_SETTINGS


class Models:
    """The models of MLServer's registry.

    version: as the protocol has it, "" for the one of the highest number; observers: are called
    with each request at its end.
    """

    def __init__(self, data_plane: DataPlane, observers: Sequence[Observer]) -> None:
        self._data_plane, self.observers = data_plane, observers
        self._registry = data_plane._model_registry
        self._root = Path(data_plane._settings.model_repository_root)

    def exchange(self, protocol: str) -> Exchange:
        """A request that begins, as the context of the work on it."""
        return Exchange(protocol, self.observers)

    async def find(self, exchange: Exchange) -> ServedModel:
        """The model that is asked, if it is ready. Raises RequestError, 404 if it is not there."""
        name, version = exchange.model, exchange.version
        try:
            model = await self._registry.get_model(name, version or None)
        except MLServerError as error:
            raise RequestError(str(error), error.status_code) from None
        if not model.ready:
            raise RequestError(str(ModelNotReady(name, version or None)))
        if not hasattr(model, "served"):
            raise RequestError(
                f"expected a model of the runtimes of fashion.runtimes, {name} has another one",
                HTTPStatus.NOT_IMPLEMENTED,
            )
        exchange.served = model.served
        return model.served

    async def is_ready(self, name: str, version: str) -> bool:
        """Whether a model is ready. Raises MLServerError, 404."""
        return await self._data_plane.model_ready(name, version or None)

    async def are_ready(self) -> bool:
        """Whether all models are, those included whose settings are broken, and there is one."""
        models = list(await self._registry.get_models())
        if not models or not all(model.ready for model in models):
            return False
        return len(models) >= len(list(self._root.rglob(MODEL_SETTINGS)))

    async def names(self) -> list[str]:
        """Each with its version."""
        models = await self._registry.get_models()
        return sorted(f"{model.name} {model.version}" for model in models)

    async def request_seconds(self) -> float:
        """For a request to arrive whole: the longest that a loaded model allows, 0 for none yet."""
        models = await self._registry.get_models()
        served = [model.served for model in models if hasattr(model, "served")]
        return max((model.limits.request_seconds for model in served), default=0)

    async def infer(self, request: InferRequest, exchange: Exchange) -> InferResponse:
        """As infer.py has it, counted in the metrics that MLServer has for it."""
        model = exchange.served
        assert model is not None
        exchange.id = request.id or ""
        duration, failures, successes = self._counters(model.name, exchange.version or None)
        start = time.perf_counter()
        try:
            response = await infer(request, model)
        except BaseException:
            failures.inc()
            raise
        finally:
            duration.observe(time.perf_counter() - start)
        successes.inc()
        exchange.id, exchange.response = response.id, response
        return response

    @cache  # noqa: B019 (there is one, as long as the server)
    def _counters(self, name: str, version: str | None) -> tuple[Summary, Counter, Counter]:
        plane = self._data_plane
        return (
            plane._ModelInferRequestDuration.labels(name, version),
            plane._ModelInferRequestFailure.labels(name, version),
            plane._ModelInferRequestSuccess.labels(name, version),
        )

    @cache  # noqa: B019
    def headers(self, name: str) -> dict[str, str]:
        """The headers of a model's responses, in lower case: MLServer's, of CloudEvents."""
        response = SimpleNamespace(id=None, parameters=None)
        middleware = self._data_plane._inference_middleware
        middleware.response_middleware(response, SimpleNamespace(name=name))
        return {key.lower(): value for key, value in (extract_headers(response) or {}).items()}


def id_headers(identifier: str) -> dict[str, str]:
    """The headers that have a response's id; what is no plain text of one line as %XX."""
    plain = identifier.isascii() and identifier.isprintable()
    return dict.fromkeys(("ce-id", "ce-requestid"), identifier if plain else quote(identifier))
