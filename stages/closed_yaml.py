"""Read a YAML file into a typed, closed form; what is wrong with it is told in words."""

import difflib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from stages.errors import StageError

Form = TypeVar("Form", bound=BaseModel)


class Section(BaseModel):
    """A section of keys: no unknown key, no conversion between types, no change later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def read_closed(path: Path, form: type[Form]) -> Form:
    """Read and check a file. form: sections of keys, each key's description what is expected.

    Raises StageError, a line for each wrong key.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except FileNotFoundError:
        raise StageError(
            f"{path}: not found in {Path.cwd()}; run from the project's root"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return form.model_validate(values)
    except ValidationError as invalid:
        lines = [_explain(path, form, error) for error in invalid.errors()]
        raise StageError("\n".join(dict.fromkeys(lines))) from None


class Loader(yaml.SafeLoader):
    """Reads YAML 1.2, as DVC writes it; in PyYAML's 1.1, 1e-3 is text, no is false, 1:30 is 90."""


_TAG = "tag:yaml.org,2002:"
_FORMS = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("[-+]?[0-9]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in {_TAG + kind for kind in _FORMS}]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_form, _first) in _FORMS.items():
    Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"^({_form})$"), list(_first))


def _explain(path: Path, form: type[BaseModel], error: ErrorDetails) -> str:
    section = form
    names, expected = [], "a section of keys and values"
    value = json.dumps(error["input"], default=str)
    for key in map(str, error["loc"]):
        names.append(key)
        known = section.model_fields
        if key not in known:
            nearest = _nearest(key, known)
            return f"{path}: {'.'.join(names)} is {value}, but no parameter; expected {nearest}"
        kind = known[key].annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            expected = known[key].description or ""
            break  # what lies deeper is a list's or a union's
        section = kind
    name = ".".join(names) or "the file"
    came = "missing" if error["type"] == "missing" else value
    return f"{path}: {name} is {came}; expected {expected}"


def _nearest(key: str, known: Iterable[str]) -> str:
    spelled = {name.lower(): name for name in known}
    near = difflib.get_close_matches(key.lower(), spelled, n=1)
    return spelled[near[0]] if near else f"one of {', '.join(sorted(spelled.values()))}"
