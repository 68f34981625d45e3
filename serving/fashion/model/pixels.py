"""Images out of requests: one tensor of pixels, or of picture files.

Each rejection is a RequestError that says what was expected and what the request has.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import PIXEL_MAX, PIXELS, SIDE
from ..inference.predictor import (
    BYTES,
    DTYPES,
    InferRequest,
    RequestError,
    Tensor,
    check_datatype,
    check_row_count,
    only_input,
    read_elements,
    read_numbers,
)
from .pictures import PixelError, read_picture

ONE_IMAGE = ((PIXELS,), (SIDE, SIDE))
SHAPES = f"[n, {PIXELS}], [n, {SIDE}, {SIDE}], [{PIXELS}] or [{SIDE}, {SIDE}]"
INVERT = "invert"  # the parameter of a request that asks for 255 less each pixel


def read_images(request: InferRequest, max_rows: int) -> np.ndarray:
    """The images of a request, uint8 [n, 784], 1 ≤ n ≤ max_rows. Raises RequestError."""
    tensor = only_input(request.inputs)
    invert = _is_inverted(tensor.parameters, request.parameters)
    if tensor.datatype == BYTES:
        return _read_pictures(tensor, invert, max_rows)
    check_datatype(tensor.datatype, [*DTYPES, BYTES])
    rows = _row_count(tensor.shape, max_rows)
    try:
        images = validate_pixels(read_numbers(tensor, rows * PIXELS).reshape(rows, PIXELS))
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


def _is_inverted(*parameters: dict[str, Any]) -> bool:
    values = [given[INVERT] for given in parameters if INVERT in given]
    if values and not isinstance(values[0], bool):
        raise RequestError(f"expected parameter {INVERT} as true or false, got {values[0]!r:.40}")
    return bool(values and values[0])


def _row_count(shape: Sequence[int], max_rows: int) -> int:
    sides = tuple(shape)
    if sides in ONE_IMAGE:
        return 1
    if not sides or sides[1:] not in ONE_IMAGE:
        raise RequestError(f"expected shape {SHAPES}, got {list(shape)}")
    return check_row_count(sides[0], max_rows, shape, "images")


def _read_pictures(tensor: Tensor, invert: bool, max_rows: int) -> np.ndarray:
    shape = list(tensor.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise RequestError(f"expected shape [n] of {BYTES}, a picture each, got {shape}")
    rows = check_row_count(shape[0], max_rows, shape, "images")
    files = read_elements(tensor.data)
    if len(files) != rows:
        raise RequestError(f"expected {rows:,} pictures for shape {shape}, got {len(files):,}")
    return np.stack([_read_picture(file, index, invert) for index, file in enumerate(files)])


def _read_picture(file: Any, index: int, invert: bool) -> np.ndarray:
    if isinstance(file, str):
        try:
            file = base64.b64decode(file, validate=True)
        except (binascii.Error, ValueError):
            raise RequestError(
                f"expected a PNG or JPEG file in base64 at image {index}, got {file!r:.40}"
            ) from None
    if not isinstance(file, bytes):
        raise RequestError(f"expected a PNG or JPEG file at image {index}, got {file!r:.40}")
    try:
        return read_picture(file, invert)
    except PixelError as error:
        raise RequestError(f"expected {error}, at image {index}") from None
