"""Read a YAML file into a typed form; what is wrong with it is one line a key."""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML, YAMLError

from stages.console import StageError

Form = TypeVar("Form", bound=BaseModel)


class Section(BaseModel):
    """A section of keys: no unknown key, no conversion between types, no change later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read_strict(path: Path, form: type[Form], moved: Mapping[str, str] = {}) -> Form:
    """Read and check a file; moved: renamed keys. Raises StageError, a line for each wrong key."""
    values = read_yaml(path)
    try:
        return form.model_validate(values)
    except ValidationError as invalid:
        expected: dict[str, list[str]] = {}
        for error in invalid.errors():
            found, words = _explain(form, values, error)
            words = f"it is {now} now" if (now := moved.get(found.split(" is ")[0])) else words
            expected.setdefault(found, []).append(words)
        lines = [
            f"{path}: {found}; " + " or ".join(words).replace(" or expected ", " or ")
            for found, words in expected.items()
        ]
        raise StageError("\n".join(lines)) from None


def read_yaml(path: Path) -> Any:
    """What a file holds, by YAML 1.2, as DVC reads it. Raises StageError."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(
            f"{path}: not found in {Path.cwd()}; run from the project's root"
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _explain(form: type[BaseModel], value: Any, error: Mapping[str, Any]) -> tuple[str, str]:
    """What was found there, and what was expected, in pydantic's words."""
    names, kind = [], error["type"]
    for name in error["loc"]:
        if not isinstance(value, dict):
            break  # what lies deeper is of a list or a union
        names.append(str(name))
        value = value.get(name)
    where = ".".join(names) or "the file"
    if kind == "missing":
        return f"{where} is missing", "expected a value"
    found = f"{where} is {json.dumps(value, default=str)}"
    if kind == "extra_forbidden":
        return f"{found}, but no parameter", f"expected {_nearest(form, *error['loc'])}"
    message = re.sub("^Input should be (?=greater|less)", "Expected a number ", error["msg"])
    message = re.sub("^(Input should be|Value error,)", "Expected", message)
    return found, message[0].lower() + message[1:]


def _nearest(section: Any, *location: int | str) -> str:
    *sections, key = location
    for name in sections:
        section = section.model_fields[name].annotation
    known = {name.lower(): name for name in section.model_fields}
    near = difflib.get_close_matches(str(key).lower(), known, n=1)
    return known[near[0]] if near else f"one of {', '.join(sorted(known.values()))}"
