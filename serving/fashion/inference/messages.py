"""Requests and responses of the Open Inference Protocol, over REST and gRPC."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import RequestError, quote


class Tensor(NamedTuple):
    """An input. data: raw bytes, a flat array, or the values of JSON or a message."""

    name: str
    shape: Sequence[int]
    datatype: str
    data: Any
    parameters: dict[str, Any]


class RequestedOutput(NamedTuple):
    """An output that a request names. binary: whether to send its values as raw bytes."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """A request.

    id: None if the client sent none; outputs: none for the model's default, which is sent as raw
    bytes if `binary`; headers: returns those of HTTP, or the metadata of a call.
    """

    id: str | None
    inputs: Sequence[Tensor]
    outputs: Sequence[RequestedOutput]
    parameters: dict[str, Any]
    binary: bool = False
    headers: Callable[[], dict[str, str]] = dict


def read_flag(parameters: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """A parameter that is true or false. Raises RequestError."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"expected parameter {name} as true or false, got {quote(value)}")
    return value


class OutputTensor(NamedTuple):
    """An output of a response. values: of dtype U, or of str or bytes as objects, for BYTES."""

    name: str
    datatype: str
    values: np.ndarray
    binary: bool
    parameters: Mapping[str, Any] = {}


class InferResponse(NamedTuple):
    """A response. version: "" for a model that has none; outputs: as requested, in that order."""

    model: str
    version: str
    id: str
    outputs: Sequence[OutputTensor]
    parameters: Mapping[str, Any] = {}
