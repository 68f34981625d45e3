"""The models of a repository. Imports the standard library alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[1]  # serving/
MODEL_SETTINGS = "model-settings.json"
RUNTIMES = "fashion.runtimes."  # begins the implementation of each of this project's models


class RepositoryError(RuntimeError):
    """A repository without models, or with settings of one that cannot be read."""


class Model(NamedTuple):
    """A model of a repository. path: of its file."""

    name: str
    version: str
    path: Path


def models_in(repository: Path, any_runtime: bool = False) -> list[Model]:
    """The models of a repository that are this project's, by name and version.

    any_runtime: those of others too. Raises RepositoryError where none is.
    """
    found = []
    for path in sorted(repository.rglob(MODEL_SETTINGS)):
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            if any_runtime or settings["implementation"].startswith(RUNTIMES):
                parameters = settings.get("parameters") or {}
                uri, version = parameters.get("uri", ""), parameters.get("version", "")
                found.append(Model(settings["name"], version, path.parent / uri))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RepositoryError(
                f"{path}: no model's settings: {error!r}; package again"
            ) from None
    if not found:
        raise RepositoryError(f"{repository}: no model packaged; package them with: dvc repro")
    return found


def version_number(version: str) -> int:
    """The number by which versions are ordered: 10 for v10; -1 for one without a number."""
    digits = version.removeprefix("v")
    return int(digits) if digits.isdecimal() else -1


def newest(models: Sequence[Model]) -> list[Model]:
    """The version with the highest number of each model, by name."""
    by_version = sorted(models, key=lambda model: version_number(model.version))
    latest = {model.name: model for model in by_version}
    return [latest[name] for name in sorted(latest)]
