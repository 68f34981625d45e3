"""Lines of the request log, with images."""

from collections.abc import Iterator
from pathlib import Path

from msgspec import field

from .inference import request_log


class LoggedImages(request_log.Line):
    """A request. probabilities: of the labels; pixels: uint8 [images, 784], base64 in JSON."""

    images: int = 0
    labels: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    pixels: bytes = b""


def read_log(folder: Path | str, newest_first: bool = False) -> Iterator[LoggedImages]:
    """The lines of a log: see inference/request_log.py."""
    return request_log.read_log(folder, LoggedImages, newest_first)
