"""Values of tensors, as requests contain them and models declare them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import RequestError, quote
from .messages import Tensor

BOOL, BYTES = "BOOL", "BYTES"  # BYTES: the datatype of text and files
DTYPES = {
    **{f"{kind}{bits}": np.dtype(f"<{kind[0].lower()}{bits // 8}")
       for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}  # fmt: skip
LENGTH_BYTES = 4  # of an element of a raw BYTES tensor, little-endian, before the element


class TensorSpec(NamedTuple):
    """A tensor that a model declares. shape: -1 is any number; the first axis is the rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def read_numbers(tensor: Tensor, count: int, with_null: bool = False) -> np.ndarray:
    """The `count` numbers of a tensor, in the type in which they arrive.

    with_null: null is NaN, as MLServer's clients send it. Raises RequestError.
    """
    expected = f"for shape {list(tensor.shape)}"
    dtype = np.dtype(np.bool_) if tensor.datatype == BOOL else DTYPES[tensor.datatype]
    if isinstance(tensor.data, bytes | memoryview):
        size = count * dtype.itemsize
        if len(tensor.data) != size:
            raise RequestError(
                f"expected {size:,} bytes of {tensor.datatype} {expected}, got {len(tensor.data):,}"
            )
        return np.frombuffer(tensor.data, dtype)
    try:
        values = np.asarray(tensor.data)
    except (ValueError, TypeError, OverflowError):
        raise RequestError(
            f"expected a flat list of numbers {expected}, got a ragged one"
        ) from None
    if with_null and dtype.kind == "f" and values.dtype.kind == "O":
        values = _null_as_nan(values)
    if values.dtype.kind not in ("iufb" if tensor.datatype == BOOL else "iuf"):
        raise RequestError(f"expected numbers {expected}, got {_first_other(values)}")
    if values.size != count:
        raise RequestError(f"expected {count:,} values {expected}, got {values.size:,}")
    if dtype.kind in "iu" and values.dtype.kind == "f":
        check_whole(values, tensor.datatype)
    return values


def _null_as_nan(values: np.ndarray) -> np.ndarray:
    known = all(value is None or type(value) in (int, float) for value in values.ravel().tolist())
    return values.astype(np.float64) if known else values


def check_whole(values: np.ndarray, datatype: str) -> None:
    """Raise RequestError where a value is not a whole number."""
    broken = np.flatnonzero(values != np.rint(values))
    if len(broken):
        value = values.ravel()[broken[0]]
        raise RequestError(f"expected whole numbers for {datatype}, got {value}")


def _first_other(values: np.ndarray) -> str:
    if values.dtype.kind == "b":
        return "booleans"
    for value in values.ravel().tolist():
        if value is None:
            return "null"
        if isinstance(value, str | bytes):
            return "text"
        if not isinstance(value, int | float):
            return f"a {type(value).__name__}"
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            return f"{str(value)[:20]}…"
    return f"{values.dtype} values"


def read_elements(data: Any) -> list[Any]:
    """The elements of a BYTES tensor: bytes if it is raw, else the list's elements.

    A list of lists of one each, as of shape [n, 1], is taken as one list. Raises RequestError.
    """
    if isinstance(data, bytes | memoryview):
        return split_elements(bytes(data))
    items = data if isinstance(data, list) else [data]
    return [item[0] if isinstance(item, list) and len(item) == 1 else item for item in items]


def split_elements(raw: bytes) -> list[bytes]:
    """The elements of a raw BYTES tensor. Raises RequestError."""
    elements, start = [], 0
    while start < len(raw):
        begin = start + LENGTH_BYTES
        end = begin + int.from_bytes(raw[start:begin], "little")
        if max(begin, end) > len(raw):
            raise RequestError(
                f"expected elements of {BYTES}, each after its length in four bytes, "
                f"got {len(raw):,} bytes that end within the one at byte {start:,}"
            )
        elements.append(raw[begin:end])
        start = end
    return elements


def raw_bytes(values: np.ndarray) -> bytes:
    """An output's values as raw bytes: little-endian; text after its length."""
    if values.dtype.kind not in "UO":
        return values.tobytes()
    texts = as_list(values)
    return b"".join(len(text).to_bytes(LENGTH_BYTES, "little") + text for text in texts)


def as_list(values: np.ndarray) -> list[Any]:
    """Numbers, or the elements of BYTES as bytes, text in UTF-8."""
    if values.dtype.kind not in "UO":
        return values.ravel().tolist()
    return [text.encode() if isinstance(text, str) else text for text in values.ravel().tolist()]


def check_row_count(rows: int, max_rows: int, shape: Sequence[int], rows_are: str = "rows") -> int:
    """The number of rows, if it is allowed. Raises RequestError."""
    if rows == -1:
        raise RequestError(f"expected the number of {rows_are} in place of -1, got {list(shape)}")
    if not 1 <= rows <= max_rows:
        raise RequestError(f"expected 1 to {max_rows:,} {rows_are} a request, got {list(shape)}")
    return rows


def only_input(inputs: Sequence[Tensor]) -> Tensor:
    """The one input of a request. Raises RequestError."""
    if len(inputs) != 1:
        raise RequestError(f"expected one input tensor, got {len(inputs) or 'none'}")
    return inputs[0]


def check_datatype(datatype: str, allowed: Sequence[str]) -> None:
    """Raise RequestError for a datatype that is not allowed."""
    if datatype not in allowed:
        *some, last = allowed
        names = f"{', '.join(some)} or {last}" if some else last
        raise RequestError(f"expected datatype {names}, got {quote(datatype)}")


def match_inputs(inputs: Sequence[Tensor], specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The declaration of each tensor, by name; a single one may have any. Raises RequestError."""
    if len(specs) == 1 == len(inputs):
        return list(specs)
    by_name = {spec.name: spec for spec in specs}
    names = [tensor.name for tensor in inputs]
    if sorted(names) != sorted(by_name):
        expected = f"{len(specs)} inputs, {', '.join(by_name)}" if len(specs) > 1 else "one input"
        raise RequestError(f"expected {quote(expected)}, got {quote(', '.join(names) or 'none')}")
    return [by_name[name] for name in names]


def read_tensor(
    tensor: Tensor, spec: TensorSpec | None = None, max_rows: int | None = None
) -> np.ndarray:
    """The values of a tensor, in the datatype and axes of `spec`, or else of the tensor.

    Numbers are converted where that loses nothing but digits of a fraction; NaN is passed on,
    infinity rejected. Elements of BYTES are objects: str or bytes. Raises RequestError.
    """
    spec = spec or TensorSpec(tensor.name, tensor.datatype, (-1,) * len(tensor.shape))
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
            raise RequestError(f"expected whole numbers within {datatype}, got larger ones")
        return converted
    if values.dtype.kind == "f":
        check_whole(values, datatype)
    limits = np.iinfo(dtype)
    if values.size and (values.min() < limits.min or values.max() > limits.max):
        raise RequestError(f"expected numbers from {limits.min} to {limits.max} for {datatype}")
    return values.astype(dtype, copy=False)
