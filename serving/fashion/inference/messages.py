"""Requests and responses of the Open Inference Protocol, whichever way they travel."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """An input.

    data: its raw bytes; a flat float64 array; or what JSON or a message holds, lists mostly.
    """

    name: str
    shape: Sequence[int]
    datatype: str
    data: Any
    parameters: dict[str, Any]


class RequestedOutput(NamedTuple):
    """An output that a request names. binary: whether its values are to be sent as raw bytes."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """A request.

    id: None if the client gave none; outputs: none for the model's default, which is sent as raw
    bytes where `binary`.
    """

    id: str | None
    inputs: Sequence[Tensor]
    outputs: Sequence[RequestedOutput]
    parameters: dict[str, Any]
    binary: bool = False


class OutputTensor(NamedTuple):
    """An output of a response. values: [rows, …]; text has dtype U."""

    name: str
    datatype: str
    values: np.ndarray
    binary: bool


class InferResponse(NamedTuple):
    """A response. outputs: what was requested, in that order."""

    model: str
    version: str
    id: str
    outputs: Sequence[OutputTensor]
