"""Requests and responses of the Open Inference Protocol, whichever way they travel."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np

from ..contract import CLASS_LABELS, IMAGES, LABELS, PROBABILITIES

SHOWN = 60  # characters of a client's value that an error quotes
RETRY_SECONDS = 1  # after which a busy server may be asked again
DATATYPES = {LABELS: "INT64", PROBABILITIES: "FP64", CLASS_LABELS: "BYTES", IMAGES: "UINT8"}
PICTURES = "BYTES"  # the datatype of inputs that are files
LENGTH_BYTES = 4  # of an element of a raw BYTES tensor, little-endian, before the element


class RequestError(ValueError):
    """A request that is rejected. The message is one sentence for the client.

    status: of HTTP; gRPC has a code for each.
    """

    def __init__(self, sentence: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(sentence)
        self.status = status


class Tensor(NamedTuple):
    """An input.

    data: its raw bytes; a flat float64 array; or what JSON or a message holds, lists mostly.
    """

    name: str
    shape: Sequence[int]
    datatype: str
    data: Any
    parameters: dict[str, Any]


class Output(NamedTuple):
    """A requested output. binary: whether its values are to be sent as raw bytes."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """A request. id: None if the client gave none; outputs: at least one."""

    id: str | None
    inputs: Sequence[Tensor]
    outputs: Sequence[Output]
    parameters: dict[str, Any]


class InferResponse(NamedTuple):
    """A response.

    outputs: what was requested, in that order; results: all that was computed, by name; the first
    axis of both the images.
    """

    model: str
    version: str
    id: str
    outputs: Sequence[tuple[Output, np.ndarray]]
    results: dict[str, np.ndarray]


def shown(value: object) -> str:
    """A client's value as an error quotes it: as it is where that is one short line."""
    text = str(value)
    if text.isprintable() and 0 < len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]!r}" + ("…" if len(text) > SHOWN else "")


def one_line(text: object) -> str:
    """As it is, but for characters that would begin a new line, or not be seen, in the log."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


def raw_bytes(values: np.ndarray) -> bytes:
    """An output's values as the protocol sends them raw: little-endian; text after its length."""
    if values.dtype.kind != "U":
        return values.tobytes()
    texts = [text.encode() for text in values.tolist()]
    return b"".join(len(text).to_bytes(LENGTH_BYTES, "little") + text for text in texts)
