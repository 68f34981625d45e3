"""The folder of models, and what of it may be changed by request."""

import sys
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlserver.errors import MLServerError, ModelNotFound
from mlserver.handlers import ModelRepositoryHandlers
from mlserver.model import MLModel
from mlserver.repository import SchemalessModelRepository
from mlserver.settings import ModelSettings, Settings
from mlserver.types import State

from ..inference.credentials import SecretError
from ..inference.metrics import LOST, add_request
from ..inference.request_log import RequestLog
from ..inference.settings import ServerSettings, read_settings
from ..integrity import STRICT
from .access import ACCESS
from .preflight import check_start


class Repository(SchemalessModelRepository):
    """A folder of models, in which nothing is loaded or unloaded by request unless allowed.

    root: the folder; allow_load: what settings.json says of it; options: of ServerSettings, there
    too. Ends the program, in one line, where a server could not serve.
    """

    def __init__(self, root: str, allow_load: bool = False, **options: Any) -> None:
        super().__init__(root)
        self.allow_load = allow_load
        path = Path(root, "settings.json")
        settings = Settings.model_validate_json(path.read_bytes()) if path.exists() else Settings()
        check_start(Path(root), allow_load, settings)
        self.observers = [add_request] if settings.metrics_endpoint else []
        extras = read_settings(options)
        try:
            ACCESS.configure(extras)
            if extras.request_log:
                self.observers.append(_open_log(extras).add)
        except SecretError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            sys.exit(f"error: FASHION_REQUEST_LOG is {extras.request_log}: {error.strerror}")


@cache  # MLServer makes two repositories, of which it serves one
def _open_log(settings: ServerSettings) -> RequestLog:
    assert settings.request_log is not None
    return RequestLog(
        settings.request_log, settings.request_log_images, settings.request_log_mb, LOST.inc
    )


class Handlers(ModelRepositoryHandlers):
    """Loads and unloads models by request only where settings.json allows it."""

    async def load(self, name: str) -> bool:
        """Load a model, or a new version of it. Raises MLServerError, 403, or 409 if unfit."""
        self._check("load")
        strict = STRICT.set(True)
        try:
            return await super().load(name)
        finally:
            STRICT.reset(strict)

    async def unload(self, name: str) -> bool:
        """Unload all versions of a model. Raises MLServerError, 403."""
        self._check("unload")
        return await super().unload(name)

    async def _get_state(self, model_settings: ModelSettings) -> State:
        """Of the version in question, where MLServer takes the newest one's."""
        with suppress(ModelNotFound):
            model = await self._model_registry.get_model(
                model_settings.name, model_settings.version
            )
            return State.READY if model.ready else State.UNAVAILABLE
        return State.UNAVAILABLE

    def _check(self, action: str) -> None:
        if not getattr(self._repository, "allow_load", False):
            raise MLServerError(
                f"expected no request to {action} models: settings.json does not allow it "
                '(model_repository_implementation_args: {"allow_load": true})',
                HTTPStatus.FORBIDDEN,
            )


def is_newer(a: MLModel, b: MLModel) -> int:
    """Above 0 if the first has the higher number: v10 comes after v9."""
    return _number(a) - _number(b)


def _number(model: MLModel) -> int:
    digits = (model.version or "").removeprefix("v")
    return int(digits) if digits.isdecimal() else -1
