"""Whether a model's files may be loaded: unaltered, and with libraries that fit."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version


class UnfitModelError(RuntimeError):
    """A model that must not be loaded; the message has the reason and what to do."""


# Whether such a model raises, as in a request to load it. At the start of a server it is a line of
# the log, and the other models are served.
RAISE_IF_UNFIT: ContextVar[bool] = ContextVar("RAISE_IF_UNFIT", default=False)

# Libraries that read a model's files. A saved scikit-learn model is only sure to work with the
# version that saved it (User Guide, 11.1.3); XGBoost reads models of earlier versions, not of later
# ones (documentation, "Introduction to Model IO"). With other libraries, results could differ.
EXACT, NOT_OLDER = ("scikit-learn",), ("xgboost",)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, expected: Mapping[str, str]) -> None:
    """Raise UnfitModelError unless each file, by name, has this SHA-256."""
    for name, checksum in expected.items():
        try:
            actual = sha256(folder / name)
        except OSError as error:
            raise UnfitModelError(f"{folder / name}: {error.strerror}; package it again") from None
        if actual != checksum:
            raise UnfitModelError(
                f"{folder / name}: expected SHA-256 {checksum}, got {actual}; package it again"
            )


def installed(name: str) -> str:
    """The version of a library; "0" for none. XGBoost comes without GPU code as xgboost-cpu too."""
    for distribution in (name, f"{name}-cpu"):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return "0"


def check_libraries(trained_with: Mapping[str, str]) -> list[str]:
    """Warnings for libraries of another version than in training.

    Raises UnfitModelError for one that may not read the model.
    """
    warnings = []
    for name, trained in trained_with.items():
        here = installed(name)
        if here == trained:
            continue
        message = f"trained with {name} {trained}, here is {here if here != '0' else 'none'}"
        if name in EXACT or (name in NOT_OLDER and Version(here) < Version(trained)):
            raise UnfitModelError(f"{message}; install {name}=={trained}, or train again")
        warnings.append(message)
    return warnings
