"""What a request may hold: one tensor of images, and outputs that a model has.

Each rejection is a RequestError that says what was expected and what the request has.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import OUTPUTS, PIXEL_MAX, PIXELS, SIDE
from ..inference.messages import LENGTH_BYTES, PICTURES, InferRequest, RequestError, Tensor, shown
from .pictures import PixelError, read_picture

NUMBERS = {
    **{f"{kind}{bits}": np.dtype(f"<{kind[0].lower()}{bits // 8}")
       for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}  # fmt: skip
ONE_IMAGE = ((PIXELS,), (SIDE, SIDE))
SHAPES = f"[n, {PIXELS}], [n, {SIDE}, {SIDE}], [{PIXELS}] or [{SIDE}, {SIDE}]"
INVERT = "invert"  # the parameter of a request that asks for 255 less each pixel


def read_images(request: InferRequest, max_rows: int) -> np.ndarray:
    """The images of a request for outputs that a model has, uint8 [n, 784], 1 ≤ n ≤ max_rows.

    Raises RequestError.
    """
    for output in request.outputs:
        if output.name not in OUTPUTS:
            among = ", ".join(OUTPUTS)
            raise RequestError(f"expected outputs out of {among}, got {shown(output.name)}")
    if len(request.inputs) != 1:
        raise RequestError(f"expected one input tensor, got {len(request.inputs) or 'none'}")
    (tensor,) = request.inputs
    invert = _inverted(tensor.parameters, request.parameters)
    if tensor.datatype == PICTURES:
        return _read_pictures(tensor, invert, max_rows)
    if tensor.datatype not in NUMBERS:
        raise RequestError(
            f"expected datatype {', '.join(NUMBERS)} or {PICTURES}, got {shown(tensor.datatype)}"
        )
    rows = _count(tensor.shape, max_rows)
    try:
        images = validate_pixels(_read_numbers(tensor, rows).reshape(rows, PIXELS))
    except PixelError as error:
        raise RequestError(str(error)) from None
    return PIXEL_MAX - images if invert else images


def validate_pixels(images: np.ndarray) -> np.ndarray:
    """Images, any numbers [n, 784], 0 to 255, rounded (halves to even) to uint8 [n, 784].

    Raises PixelError for another shape, for what is no number, NaN, infinity, or out of range.
    """
    images = np.asarray(images)
    if images.shape[1:] != (PIXELS,):
        shape = ", ".join(map(str, images.shape))
        raise PixelError(f"expected images of shape [n, {PIXELS}], got [{shape}]")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype.kind not in "iuf":
        raise PixelError(f"expected pixel values as numbers, got {images.dtype}")
    with np.errstate(invalid="ignore"):
        whole = images.astype(np.uint8)
    if (whole == images).all():  # as nearly always: NaN, and numbers beyond a byte, are unequal
        return whole
    if not (images.min() >= 0 and images.max() <= PIXEL_MAX):  # which NaN is neither
        row, pixel = np.argwhere(~((images >= 0) & (images <= PIXEL_MAX)))[0]
        raise PixelError(
            f"expected pixel values from 0 to {PIXEL_MAX}, "
            f"got {images[row, pixel]:.6g} at image {row}, pixel {pixel}"
        )
    return np.rint(images).astype(np.uint8)


def _inverted(*parameters: dict[str, Any]) -> bool:
    values = [given[INVERT] for given in parameters if INVERT in given]
    if values and not isinstance(values[0], bool):
        raise RequestError(f"expected parameter {INVERT} as true or false, got {values[0]!r:.40}")
    return bool(values and values[0])


def _count(shape: Sequence[int], max_rows: int) -> int:
    sides = tuple(shape)
    if sides in ONE_IMAGE:
        return 1
    if not sides or sides[1:] not in ONE_IMAGE:
        raise RequestError(f"expected shape {SHAPES}, got {list(shape)}")
    return _within(sides[0], max_rows, shape)


def _within(rows: int, max_rows: int, shape: Sequence[int]) -> int:
    if not 1 <= rows <= max_rows:
        raise RequestError(f"expected 1 to {max_rows:,} images a request, got {list(shape)}")
    return rows


def _read_numbers(tensor: Tensor, rows: int) -> np.ndarray:
    expected, dtype = f"for shape {list(tensor.shape)}", NUMBERS[tensor.datatype]
    if isinstance(tensor.data, bytes | memoryview):
        size = rows * PIXELS * dtype.itemsize
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
    if values.dtype.kind not in "iuf":
        raise RequestError(f"expected numbers {expected}, got {_stranger(values)}")
    if values.size != rows * PIXELS:
        raise RequestError(f"expected {rows * PIXELS:,} values {expected}, got {values.size:,}")
    if dtype.kind != "f" and values.dtype.kind == "f":
        broken = np.flatnonzero(values != np.rint(values))
        if len(broken):
            value = values.ravel()[broken[0]]
            raise RequestError(f"expected whole numbers for {tensor.datatype}, got {value}")
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


def _read_pictures(tensor: Tensor, invert: bool, max_rows: int) -> np.ndarray:
    shape, data = list(tensor.shape), tensor.data
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise RequestError(f"expected shape [n] of {PICTURES}, a picture each, got {shape}")
    rows = _within(shape[0], max_rows, shape)
    if isinstance(data, bytes | memoryview):
        files = _elements(bytes(data))
    else:  # a list, or one of lists of one each, where the shape is [n, 1]
        items = data if isinstance(data, list) else [data]
        files = [f[0] if isinstance(f, list) and len(f) == 1 else f for f in items]
    if len(files) != rows:
        raise RequestError(f"expected {rows:,} pictures for shape {shape}, got {len(files):,}")
    return np.stack([_read_picture(file, place, invert) for place, file in enumerate(files)])


def _read_picture(file: Any, place: int, invert: bool) -> np.ndarray:
    if isinstance(file, str):
        try:
            file = base64.b64decode(file, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(
                f"expected a PNG or JPEG file in base64 at image {place}, got {file!r:.40}"
            ) from None
    if not isinstance(file, bytes):
        raise RequestError(f"expected a PNG or JPEG file at image {place}, got {file!r:.40}")
    try:
        return read_picture(file, invert)
    except PixelError as error:
        raise RequestError(f"expected {error}, at image {place}") from None


def _elements(raw: bytes) -> list[bytes]:
    elements, start = [], 0
    while start < len(raw):
        begin = start + LENGTH_BYTES
        end = begin + int.from_bytes(raw[start:begin], "little")
        if max(begin, end) > len(raw):
            raise RequestError(
                f"expected elements of {PICTURES}, each after its length in four bytes, "
                f"got {len(raw):,} bytes that end within the one at byte {start:,}"
            )
        elements.append(raw[begin:end])
        start = end
    return elements
