"""Pages out of the templates in report/page/, each one file that needs no other file."""

import base64
import io
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from serving.fashion.contract import SIDE


def picture(image: np.ndarray) -> str:
    """An image, uint8 [784], as a data URI."""
    file = io.BytesIO()
    Image.fromarray(image.reshape(SIDE, SIDE)).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def render(template: str, found: dict[str, Any]) -> str:
    """A page, HTML. template: its file's name; found: all that it shows."""
    environment = Environment(
        loader=PackageLoader("report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(found)
