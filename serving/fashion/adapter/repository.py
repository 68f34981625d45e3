"""The folder of models, and which version of a model is the newer one."""

from pathlib import Path
from typing import Any

from mlserver.logging import logger
from mlserver.model import MLModel
from mlserver.repository import SchemalessModelRepository
from mlserver.settings import ModelSettings, Settings

from ..contract import NOT_SERVED
from ..inference.errors import one_line
from ..packaged import MODEL_SETTINGS, version_number
from .options import OPTIONS
from .preflight import check_start, outranked_variables


class Repository(SchemalessModelRepository):
    """A folder of models. Ends the program, in one line, where a server could not serve.

    root: the folder; allow_load: whether models are loaded and unloaded by request; options: of
    inference.settings.ServerSettings. settings.json has all but the first.
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
        """The settings in the folder; those of the first time are what is to be loaded.

        Then, one whose implementation cannot be imported, which would end the server of all, is
        left out, with a line in the log.
        """
        found = await super().list()
        if not Repository._is_listed:  # MLServer makes two repositories
            Repository._is_listed = True
            read = {getattr(settings, "_source", None) for settings in found}
            paths = Path(self._root).resolve().rglob(MODEL_SETTINGS)
            OPTIONS.broken = {path for path in paths if str(path) not in read}
            OPTIONS.expected = {(settings.name, settings.version or "") for settings in found}
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
