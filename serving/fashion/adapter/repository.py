"""The folder of models, and MLServer's registry of them as the `Models` of inference/."""

from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from mlserver.errors import MLServerError
from mlserver.handlers import DataPlane, ModelRepositoryHandlers
from mlserver.logging import logger
from mlserver.model import MLModel
from mlserver.repository import SchemalessModelRepository
from mlserver.settings import ModelSettings, Settings

from ..contract import NOT_SERVED
from ..inference.errors import RequestError, one_line
from ..inference.handler import ServedModel
from ..integrity import RAISE_IF_UNFIT, UnfitModelError
from ..packaged import MODEL_SETTINGS, version_number
from .options import OPTIONS
from .preflight import check_start, outranked_variables

READY, UNAVAILABLE = "READY", "UNAVAILABLE"  # states in the index


class Repository(SchemalessModelRepository):
    """A folder of models. Exits in one line where a server could not serve.

    root: the folder; allow_load: whether models are loaded and unloaded by request; options: of
    ServerSettings. settings.json has all but the first.
    """

    _is_listed = False

    def __init__(self, root: str, allow_load: bool = False, **options: Any) -> None:
        super().__init__(root)
        path = Path(root, "settings.json")
        settings = Settings.model_validate_json(path.read_bytes()) if path.exists() else Settings()
        check_start(Path(root), allow_load, OPTIONS.hosts_installed, settings)
        OPTIONS.warnings = outranked_variables(path)
        OPTIONS.configure(allow_load, bool(settings.metrics_endpoint), options)

    async def list(self) -> list[ModelSettings]:
        """The settings in the folder; the models of the first call are to be loaded.

        That call leaves out one whose implementation cannot be imported, which would end the
        server of all models, and logs a line.
        """
        found = await super().list()
        if not Repository._is_listed:  # MLServer makes two repositories
            Repository._is_listed = True
            read = {getattr(settings, "_source", None) for settings in found}
            paths = map(str, Path(self._root).resolve().rglob(MODEL_SETTINGS))
            OPTIONS.expected = {(settings.name, settings.version or "") for settings in found}
            OPTIONS.expected |= {(path, "") for path in paths if path not in read}
            return [settings for settings in found if _is_importable(settings)]
        return found


def _is_importable(settings: ModelSettings) -> bool:
    try:
        return bool(settings.implementation)
    except Exception as error:  # of any kind, since the module is run
        reason = f"{settings.implementation_}: {type(error).__name__}: {one_line(error)}"
        logger.error(NOT_SERVED.format(name=settings.name, version=settings.version or "") + reason)
        return False


def is_newer(a: MLModel, b: MLModel) -> int:
    """Above 0 if the first has the higher number: v10 comes after v9."""
    return version_number(a.version or "") - version_number(b.version or "")


class RegistryModels:
    """See inference.handler.Models. An MLServerError becomes a RequestError."""

    def __init__(self, data_plane: DataPlane, handlers: ModelRepositoryHandlers) -> None:
        self._data_plane = data_plane
        self._registry = data_plane._model_registry
        self._handlers = handlers

    async def are_ready(self) -> bool:
        """Whether all models to be loaded are, and there is one."""
        models = list(await self._registry.get_models())
        ready = {(model.name, model.version or "") for model in models if model.ready}
        return bool(ready) and len(ready) == len(models) and ready >= OPTIONS.expected

    async def server_metadata(self) -> dict[str, Any]:
        return (await self._data_plane.metadata()).model_dump()

    async def index(self, only_ready: bool) -> list[dict[str, Any]]:
        replaced, items = await self.replaced(), []
        for settings in await self._handlers._repository.list():
            name, version, is_ready = settings.name, settings.version, False
            with suppress(RequestError):  # not loaded
                is_ready = await self.is_ready(name, version or "")
            if is_ready or not only_ready:
                item = {"name": name, "state": READY if is_ready else UNAVAILABLE}
                item |= {"version": version} if version else {}
                items.append(item | {"reason": replaced.get(name, "")})
        return items

    async def replaced(self) -> dict[str, str]:
        """Messages for the models in memory that differ from the folder's, by name."""
        what = "restart the server" + (", or load it anew" if OPTIONS.allow_load else "")
        return {
            model.name: f"its files were replaced after it was loaded; {what}"
            for model in await self._registry.get_models()
            if vars(model).get("settings_file", now := read_settings_file(model)) != now
        }

    async def find(self, name: str, version: str) -> ServedModel:
        model = await self._get(name, version)
        if not model.ready:
            named = f"{name} with version {version}" if version else name
            raise RequestError(f"Model {named} is not ready yet.", HTTPStatus.SERVICE_UNAVAILABLE)
        return model.served

    async def is_ready(self, name: str, version: str) -> bool:
        return (await self._get(name, version)).ready

    async def metadata(self, name: str, version: str) -> dict[str, Any]:
        metadata = await (await self._get(name, version)).metadata()
        return metadata.model_dump(mode="json", exclude_none=True)

    async def load(self, name: str) -> None:
        """Load a model, or new versions of it. Raises RequestError, 403, or 409 if it is unfit."""
        _check_allowed("load")
        strict = RAISE_IF_UNFIT.set(True)
        try:
            await self._handlers.load(name)
        except MLServerError as error:
            raise RequestError(str(error), error.status_code) from None
        except UnfitModelError as error:
            raise RequestError(f"{name} is not loaded: {error}", HTTPStatus.CONFLICT) from None
        finally:
            RAISE_IF_UNFIT.reset(strict)
        versions = await self._registry.get_models(name)
        self._expect_only(name, {(name, model.version or "") for model in versions})
        settings = await self._handlers._repository.find(name)
        OPTIONS.expected -= {(getattr(found, "_source", ""), "") for found in settings}

    def _expect_only(self, name: str, versions: set[tuple[str, str]]) -> None:
        others = {expected for expected in OPTIONS.expected if expected[0] != name}
        OPTIONS.expected = others | versions

    async def unload(self, name: str) -> None:
        """Unload all versions of a model. Raises RequestError, 403, 404."""
        _check_allowed("unload")
        try:
            await self._handlers.unload(name)
        except MLServerError as error:
            raise RequestError(str(error), error.status_code) from None
        self._expect_only(name, set())

    async def names(self) -> list[str]:
        """Each with its version."""
        models = await self._registry.get_models()
        return sorted(f"{model.name} {model.version or ''}".strip() for model in models)

    async def request_seconds(self) -> float:
        """For a request to arrive whole: the longest that a loaded model allows, 0 for none yet."""
        models = await self._registry.get_models()
        served = [getattr(model, "served", None) for model in models]
        return max((model.limits.request_seconds for model in served if model), default=0)

    async def _get(self, name: str, version: str) -> MLModel:
        try:
            return await self._registry.get_model(name, version or None)
        except MLServerError as error:
            raise RequestError(str(error), error.status_code) from None


def _check_allowed(action: str) -> None:
    if not OPTIONS.allow_load:
        raise RequestError(
            f"expected no request to {action} models: settings.json does not allow it "
            '(model_repository_implementation_args: {"allow_load": true})',
            HTTPStatus.FORBIDDEN,
        )


def read_settings_file(model: MLModel) -> bytes:
    """The content of model-settings.json, in which this project's have SHA-256 of all files."""
    with suppress(OSError):
        return Path(model.settings._source or "").read_bytes()
    return b""
