"""Lines of the request log, read back."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from .inference.request_log import log_files


class LoggedImages(msgspec.Struct, omit_defaults=True):
    """A request. probabilities: of the labels; pixels: uint8 [images, 784], base64 in JSON."""

    time: datetime
    id: str
    model: str
    version: str
    protocol: str
    status: int
    milliseconds: float
    error: str = ""
    images: int = 0
    labels: list[int] = []
    probabilities: list[float] = []
    pixels: bytes = b""


DECODER = msgspec.json.Decoder(LoggedImages)


def read_log(folder: Path | str, newest_first: bool = False) -> Iterator[LoggedImages]:
    """The lines of a log, file by file, except those that were cut off.

    Raises OSError if there is no folder, or a file cannot be read.
    """
    os.listdir(folder)  # raises if there is none, which glob does not
    step = -1 if newest_first else 1
    for path in log_files(Path(folder))[::step]:
        lines = []
        for text in path.read_bytes().splitlines():
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                lines.append(DECODER.decode(text))
        yield from lines[::step]
