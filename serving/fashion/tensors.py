"""What a request of the V2 protocol asks, as images; what a model answers, as tensors.

The contract of both models over both protocols; each refusal is an InferenceError, which MLServer
answers as 400 (REST) or INVALID_ARGUMENT (gRPC), saying what was expected and what came.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, Parameters, RequestInput, ResponseOutput, TensorData

from .contract import (
    CLASS_LABELS,
    IMAGES,
    LABELS,
    OUTPUTS,
    PIXEL_MAX,
    PIXELS,
    PROBABILITIES,
    SIDE,
)
from .features import PixelError, checked
from .pictures import read_picture

NUMBERS = {
    **{f"{kind}{bits}": np.dtype(f"<{kind[0].lower()}{bits // 8}")
       for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}  # fmt: skip
PICTURES = "BYTES"
ONE_IMAGE = ((PIXELS,), (SIDE, SIDE))
SHAPES = f"[n, {PIXELS}], [n, {SIDE}, {SIDE}], [{PIXELS}] or [{SIDE}, {SIDE}]"
SMALL = 16 * PIXELS  # values, read in less time than another thread takes to begin
SHOWN = 60  # characters of a value that a refusal quotes
INVERT = "invert"  # the parameter of a request that asks for 255 less each pixel
DATATYPES = {LABELS: "INT64", PROBABILITIES: "FP64", CLASS_LABELS: "BYTES", IMAGES: "UINT8"}


class Tensor(NamedTuple):
    """What is read of an input. data: bytes, a list, or an array of numbers."""

    name: str
    shape: Sequence[int]
    datatype: str
    data: Any
    parameters: None = None


class Output(NamedTuple):
    """An output that is asked for."""

    name: str


class Question(NamedTuple):
    """What is read of a request, and whom it asks. version, id: may be empty, or None."""

    model: str
    version: str | None
    id: str | None
    inputs: Sequence[Tensor]
    outputs: Sequence[Output]
    parameters: None = None


# A request as MLServer has it, or with as much of it as is read here (see express.py).
Asked: TypeAlias = InferenceRequest | Question


def shown(value: object) -> str:
    """A client's value as a refusal quotes it: plain where that is one short line."""
    text = str(value)
    if text.isprintable() and 0 < len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]!r}" + ("…" if len(text) > SHOWN else "")


def one_line(text: object) -> str:
    """As it is, but for what would begin a new line, or not be seen, in the log."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(text))


def expected_inputs(count: int) -> str:
    """The refusal of another number of tensors than one."""
    return f"expected one input tensor, got {count or 'none'}"


def expected_datatype(datatype: object) -> str:
    """The refusal of a datatype."""
    return f"expected datatype {', '.join(NUMBERS)} or {PICTURES}, got {shown(datatype)}"


def read_images(request: Asked, max_rows: int) -> np.ndarray:
    """The images that a request asks about; uint8 [n, 784], 1 ≤ n ≤ max_rows.

    Raises InferenceError for everything else.
    """
    if len(request.inputs) != 1:
        raise InferenceError(expected_inputs(len(request.inputs)))
    (tensor,) = request.inputs
    datatype = str(getattr(tensor.datatype, "value", tensor.datatype))
    invert = _inverted(tensor.parameters, request.parameters)
    if datatype == PICTURES:
        return _read_pictures(tensor, invert, max_rows)
    if datatype not in NUMBERS:
        raise InferenceError(expected_datatype(datatype))
    rows = _count(tensor.shape, max_rows)
    values = _read_numbers(_data(tensor), datatype, rows, tensor.shape).reshape(rows, PIXELS)
    try:
        images = checked(values)
    except PixelError as error:
        raise InferenceError(str(error)) from None
    return PIXEL_MAX - images if invert else images


def is_small(request: Asked) -> bool:
    """Whether its images, if it holds any, are read at once."""
    if len(request.inputs) != 1 or request.inputs[0].datatype == PICTURES:
        return False
    data = _data(request.inputs[0])
    if isinstance(data, np.ndarray):
        return data.size <= SMALL
    if isinstance(data, list):
        return len(data) <= SMALL and not (data and isinstance(data[0], list))
    return isinstance(data, bytes) and len(data) <= SMALL


def read_outputs(request: Asked) -> list[str]:
    """The names of what a request asks for, labels if it names none. Raises InferenceError."""
    asked = [output.name for output in request.outputs or []]
    for name in asked:
        if name not in OUTPUTS:
            among = ", ".join(OUTPUTS)
            raise InferenceError(f"expected outputs out of {among}, got {shown(name)}")
    return asked or [LABELS]


def write_outputs(answers: Sequence[tuple[str, np.ndarray]]) -> list[ResponseOutput]:
    """Tensors of arrays, by name, their first axis the images."""
    return [_tensor(name, values) for name, values in answers]


def _tensor(name: str, values: np.ndarray) -> ResponseOutput:
    flat = values.ravel().tolist()
    text = DATATYPES[name] == "BYTES"
    return ResponseOutput(
        name=name,
        shape=list(values.shape),
        datatype=DATATYPES[name],
        parameters=Parameters(content_type="str") if text else None,
        data=TensorData(root=[item.encode() for item in flat] if text else flat),
    )


def _inverted(*parameters: Parameters | None) -> bool:
    given = [p.model_extra[INVERT] for p in parameters if p and INVERT in (p.model_extra or {})]
    if given and not isinstance(given[0], bool):
        raise InferenceError(f"expected parameter {INVERT} as true or false, got {given[0]!r:.40}")
    return bool(given and given[0])


def _count(shape: Sequence[int], max_rows: int) -> int:
    sides = tuple(shape)
    if sides in ONE_IMAGE:
        return 1
    if not sides or sides[1:] not in ONE_IMAGE:
        raise InferenceError(f"expected shape {SHAPES}, got {list(shape)}")
    return _within(sides[0], max_rows, shape)


def _within(rows: int, max_rows: int, shape: Sequence[int]) -> int:
    if not 1 <= rows <= max_rows:
        raise InferenceError(f"expected 1 to {max_rows:,} images a request, got {list(shape)}")
    return rows


def _data(tensor: RequestInput | Tensor) -> Any:
    return getattr(tensor.data, "root", tensor.data)


def _read_numbers(data: Any, datatype: str, rows: int, shape: Sequence[int]) -> np.ndarray:
    expected, dtype = f"for shape {list(shape)}", NUMBERS[datatype]
    if isinstance(data, bytes):
        size = rows * PIXELS * dtype.itemsize
        if len(data) != size:
            raise InferenceError(
                f"expected {size:,} bytes of {datatype} {expected}, got {len(data):,}"
            )
        return np.frombuffer(data, dtype)
    try:
        values = np.asarray(data)
    except (ValueError, TypeError, OverflowError):
        raise InferenceError(
            f"expected a flat list of numbers {expected}, got a ragged one"
        ) from None
    if values.dtype.kind not in "iuf":
        raise InferenceError(f"expected numbers {expected}, got {_stranger(values)}")
    if values.size != rows * PIXELS:
        raise InferenceError(f"expected {rows * PIXELS:,} values {expected}, got {values.size:,}")
    if dtype.kind != "f" and values.dtype.kind == "f":
        broken = np.flatnonzero(values != np.rint(values))
        if len(broken):
            value = values.ravel()[broken[0]]
            raise InferenceError(f"expected whole numbers for {datatype}, got {value}")
    return values


def _stranger(values: np.ndarray) -> str:
    if values.dtype.kind == "b":
        return "booleans"
    for value in values.ravel().tolist():
        if value is None:
            return "null"
        if isinstance(value, str | bytes):
            return "text"
        if not isinstance(value, int | float):
            return f"a {type(value).__name__}"
        if abs(value) > PIXEL_MAX:
            return f"{value:.20}" if isinstance(value, float) else f"{str(value)[:20]}…"
    return f"{values.dtype} values"


def _read_pictures(tensor: RequestInput | Tensor, invert: bool, max_rows: int) -> np.ndarray:
    shape, data = list(tensor.shape), _data(tensor)
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InferenceError(f"expected shape [n] of {PICTURES}, a picture each, got {shape}")
    rows = _within(shape[0], max_rows, shape)
    if isinstance(data, bytes):
        pictures = _unpacked(data)
    else:  # a list, or one of lists of one each, where the shape is [n, 1]
        given = data if isinstance(data, list) else [data]
        pictures = [p[0] if isinstance(p, list) and len(p) == 1 else p for p in given]
    if len(pictures) != rows:
        raise InferenceError(f"expected {rows:,} pictures for shape {shape}, got {len(pictures):,}")
    return np.stack([_read_picture(file, place, invert) for place, file in enumerate(pictures)])


def _read_picture(file: Any, place: int, invert: bool) -> np.ndarray:
    if isinstance(file, str):
        try:
            file = base64.b64decode(file, validate=True)
        except (binascii.Error, ValueError):
            raise InferenceError(
                f"expected a PNG or JPEG file in base64 at image {place}, got {file!r:.40}"
            ) from None
    if not isinstance(file, bytes):
        raise InferenceError(f"expected a PNG or JPEG file at image {place}, got {file!r:.40}")
    try:
        return read_picture(file, invert)
    except PixelError as error:
        raise InferenceError(f"expected {error}, at image {place}") from None


def _unpacked(raw: bytes) -> list[bytes]:
    """Elements of a raw tensor: each its length in four bytes, little-endian, then itself."""
    elements, start = [], 0
    while start < len(raw):
        begin = start + 4
        end = begin + int.from_bytes(raw[start:begin], "little")
        if max(begin, end) > len(raw):
            raise InferenceError(
                f"expected elements of {PICTURES}, each after its length in four bytes, "
                f"got {len(raw):,} bytes that end within the one at byte {start:,}"
            )
        elements.append(raw[begin:end])
        start = end
    return elements
