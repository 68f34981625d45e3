"""Tensors of a request as the model declares them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .errors import RequestError, quote
from .messages import Tensor
from .tensors import (
    BOOL,
    BYTES,
    DTYPES,
    check_datatype,
    check_row_count,
    check_whole,
    read_elements,
    read_numbers,
)


class TensorSpec(NamedTuple):
    """A tensor that a model declares. shape: -1 is any number; the first axis is the rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def match_inputs(inputs: Sequence[Tensor], specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """What is declared of each tensor, by name; a single one may have any name.

    Raises RequestError where one is missing, unknown or given twice.
    """
    if len(specs) == 1 == len(inputs):
        return list(specs)
    by_name = {spec.name: spec for spec in specs}
    names = [tensor.name for tensor in inputs]
    if sorted(names) != sorted(by_name):
        expected = f"{len(specs)} inputs, {', '.join(by_name)}" if len(specs) > 1 else "one input"
        raise RequestError(f"expected {quote(expected)}, got {quote(', '.join(names) or 'none')}")
    return [by_name[name] for name in names]


def read_tensor(tensor: Tensor, spec: TensorSpec, max_rows: int | None = None) -> np.ndarray:
    """The values of a tensor, of the declared datatype and number of axes.

    Numbers are converted where that loses nothing but digits of a fraction; NaN is passed on,
    infinity rejected. Elements of BYTES are objects: str or bytes. Raises RequestError.
    """
    kinds = [BYTES] if spec.datatype == BYTES else [*DTYPES, BOOL]
    check_datatype(tensor.datatype, kinds)
    shape = _fit_shape(tensor, spec)
    if max_rows is not None:
        check_row_count(shape[0], max_rows, tensor.shape)
    count = math.prod(shape)
    if spec.datatype != BYTES:
        values = read_numbers(tensor, count, with_null=True)
        return convert(values, spec.datatype).reshape(shape)
    elements = read_elements(tensor.data)
    if len(elements) != count:
        raise RequestError(
            f"expected {count:,} elements for shape {list(tensor.shape)}, got {len(elements):,}"
        )
    values = np.empty(count, object)
    values[:] = elements
    return values.reshape(shape)


def _fit_shape(tensor: Tensor, spec: TensorSpec) -> tuple[int, ...]:
    """The shape in as many axes as declared: [n] is [n, 1]."""
    shape = tuple(tensor.shape)
    if {len(shape), len(spec.shape)} == {1, 2} and shape[1:] in ((), (1,)):
        shape = shape[:1] if len(spec.shape) == 1 else (*shape, 1)
    fits = len(shape) == len(spec.shape) and all(
        actual >= 0 and expected in (-1, actual)
        for expected, actual in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise RequestError(
            f"expected {spec.name} of shape {list(spec.shape)}, got {list(tensor.shape)}"
        )
    return shape


def convert(values: np.ndarray, datatype: str) -> np.ndarray:
    """Numbers in another datatype. Raises RequestError where that would change them."""
    if datatype == BOOL:
        if values.dtype.kind != "b" and not np.isin(values, (0, 1)).all():
            raise RequestError(f"expected true, false, 1 or 0 for {BOOL}, got other numbers")
        return values.astype(np.bool_)
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            converted = values.astype(dtype, copy=False)
        if np.isinf(converted).any():
            raise RequestError(f"expected finite numbers of {datatype} or NaN, got infinity")
        if values.dtype.kind in "iu" and (converted.astype(values.dtype) != values).any():
            raise RequestError(f"expected whole numbers that {datatype} has, got larger ones")
        return converted
    if values.dtype.kind == "f":
        check_whole(values, datatype)
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise RequestError(f"expected numbers from {limits.min} to {limits.max} for {datatype}")
    return values.astype(dtype, copy=False)
