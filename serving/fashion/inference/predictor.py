"""What a model is to the server: its tensors, and what it makes of rows."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import RequestError
from .messages import InferRequest, Tensor
from .tensors import (
    BYTES,
    DTYPES,
    check_datatype,
    check_row_count,
    check_whole,
    only_input,
    read_elements,
    read_numbers,
)

# What a predictor of one's own needs of this package.
__all__ = [
    "BYTES",
    "DTYPES",
    "InferRequest",
    "Predictor",
    "RequestError",
    "Results",
    "Tensor",
    "TensorSpec",
    "check_datatype",
    "check_row_count",
    "only_input",
    "read_elements",
    "read_numbers",
]

Results = dict[str, np.ndarray]


class TensorSpec(NamedTuple):
    """A tensor that a model declares. shape: -1 is any number; the first axis is the rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Predictor(ABC):
    """A model. One of another kind has its own `decode`; the default is for one tensor of numbers.

    inputs: what it takes; outputs: what it predicts, the first one for a request that names none;
    max_rows: of a request.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    max_rows: int = 10_000

    def decode(self, request: InferRequest) -> np.ndarray:
        """The rows of a request, [rows, …] in the first input's datatype. Raises RequestError.

        NaN is passed on, infinity rejected.
        """
        return read_rows(request, self.inputs[0], self.max_rows)

    @abstractmethod
    def predict(self, rows: np.ndarray) -> Results:
        """All outputs, by name, [rows, …], and whatever else `observe` and `log_fields` need."""

    def observe(self, results: Results) -> None:  # noqa: B027 (a model need not count anything)
        """Count the results of a batch in metrics of the model's own."""

    def log_fields(self, results: Results, with_inputs: bool) -> dict[str, Any]:  # noqa: ARG002
        """What the request log has of the results; with_inputs: of the rows too. JSON values."""
        return {}


def read_rows(request: InferRequest, spec: TensorSpec, max_rows: int) -> np.ndarray:
    """The only input of a request as rows of the declared shape and datatype.

    Raises RequestError.
    """
    tensor = only_input(request.inputs)
    check_datatype(tensor.datatype, list(DTYPES))
    shape, inner = tuple(tensor.shape), spec.shape[1:]
    if inner == (1,) and len(shape) == 1:
        shape = (*shape, 1)
    fits = len(shape) == len(spec.shape) and all(
        actual >= 0 and expected in (-1, actual)
        for expected, actual in zip(inner, shape[1:], strict=True)
    )
    if not fits:
        raise RequestError(
            f"expected {spec.name} of shape {list(spec.shape)}, got {list(tensor.shape)}"
        )
    rows = check_row_count(shape[0], max_rows, tensor.shape)
    values = read_numbers(tensor, rows * math.prod(shape[1:]))
    return _convert(values, spec.datatype).reshape(rows, *shape[1:])


def _convert(values: np.ndarray, datatype: str) -> np.ndarray:
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(dtype, copy=False)
        if np.isinf(values).any():
            raise RequestError(f"expected finite numbers of {datatype} or NaN, got infinity")
        return values
    if values.dtype.kind == "f":
        check_whole(values, datatype)
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise RequestError(f"expected numbers from {limits.min} to {limits.max} for {datatype}")
    return values.astype(dtype, copy=False)
