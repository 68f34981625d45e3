"""What the evaluated models were made from: commit, data, parameters, libraries."""

import json
import subprocess
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.flatten import flatten

from serving.fashion.packaged import MODEL_SETTINGS, models_in, newest
from stages.console import StageError
from stages.data.strict_yaml import read_yaml

LOCK, SERVING = Path("dvc.lock"), Path("serving")


def commit() -> str:
    """The checked-out git commit, and whether anything is changed since."""
    options = "--always", "--exclude=*", "--abbrev=40", "--dirty=, with uncommitted changes"
    command = ["git", "describe", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none yet"


def changed_stages() -> list[str]:
    """The stages that `dvc repro` would run again. Raises StageError where DVC cannot tell."""
    try:
        with Repo() as repo:
            return sorted(repo.status())
    except DvcException as error:
        raise StageError(f"dvc status: {error}") from None


def locked() -> dict[str, Any]:
    """The stages as they last ran, by name, from dvc.lock. Raises StageError without it."""
    if not LOCK.exists():
        raise StageError(f"{LOCK}: not found; make it with: dvc repro")
    return read_yaml(LOCK)["stages"]


def parameters(stages: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the last run by their whole names: {"svm.C": 5, …}."""
    flat: dict[str, Any] = {}
    for stage in stages.values():
        for values in stage.get("params", {}).values():
            flat |= flatten(values)
    return flat


def packaged() -> dict[str, dict[str, Any]]:
    """Of each served model: version, engine, libraries, SHA-256 of its files."""
    found = {}
    for model in newest(models_in(SERVING)):
        settings = json.loads((model.path.parent / MODEL_SETTINGS).read_text(encoding="utf-8"))
        kept = {name: settings["parameters"]["extra"][name] for name in ("libraries", "sha256")}
        found[model.name] = {"version": model.version, "engine": settings["platform"], **kept}
    return found
