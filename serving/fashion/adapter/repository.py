"""The folder of models, and which version of a model is the newer one."""

from pathlib import Path
from typing import Any

from mlserver.model import MLModel
from mlserver.repository import SchemalessModelRepository
from mlserver.settings import Settings

from ..packaged import version_number
from .options import OPTIONS
from .preflight import check_start


class Repository(SchemalessModelRepository):
    """A folder of models. Ends the program, in one line, where a server could not serve.

    root: the folder; allow_load: whether models are loaded and unloaded by request; options: of
    inference.settings.ServerSettings. settings.json has all but the first.
    """

    def __init__(self, root: str, allow_load: bool = False, **options: Any) -> None:
        super().__init__(root)
        path = Path(root, "settings.json")
        settings = Settings.model_validate_json(path.read_bytes()) if path.exists() else Settings()
        check_start(Path(root), allow_load, OPTIONS.hosts_installed, settings)
        OPTIONS.configure(allow_load, bool(settings.metrics_endpoint), options)


def is_newer(a: MLModel, b: MLModel) -> int:
    """Above 0 if the first has the higher number: v10 comes after v9."""
    return version_number(a.version or "") - version_number(b.version or "")
