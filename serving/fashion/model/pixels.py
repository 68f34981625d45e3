"""Images out of requests: one tensor of pixels, or of picture files.

Each error is a RequestError with the expectation and the actual value.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..contract import PIXEL_MAX, PIXELS, SIDE
from ..inference.errors import RequestError, quote
from ..inference.messages import InferRequest, Tensor, read_flag
from ..inference.tensors import (
    BYTES,
    DTYPES,
    check_datatype,
    check_row_count,
    only_input,
    read_elements,
    read_numbers,
)
from .pictures import MAX_PIXELS_A_REQUEST, PixelError, fit_picture, is_picture, open_picture

ONE_IMAGE = ((PIXELS,), (SIDE, SIDE))
SHAPES = f"[n, {PIXELS}], [n, {SIDE}, {SIDE}], [{PIXELS}] or [{SIDE}, {SIDE}]"
SPACE, BASE64 = re.compile(rb"\s+"), re.compile(rb"[A-Za-z0-9+/_=\s-]+")
URL_SAFE = bytes.maketrans(b"-_", b"+/")
DATA_URL = re.compile(rb"\s*data:[\w/+.-]*;base64,")  # of a browser's FileReader
INVERT = "invert"  # the parameter of a request for 255 minus each pixel


def read_images(request: InferRequest, max_rows: int) -> np.ndarray:
    """The images of a request, uint8 [n, 784], 1 ≤ n ≤ max_rows. Raises RequestError."""
    if len(request.inputs) > 1:
        return _read_columns(request.inputs, max_rows)
    tensor = only_input(request.inputs)
    invert = read_flag({**request.parameters, **tensor.parameters}, INVERT)
    if tensor.datatype == BYTES:
        return _read_pictures(tensor, invert, max_rows)
    check_datatype(tensor.datatype, [*DTYPES, BYTES])
    rows = _row_count(tensor.shape, max_rows)
    images = validate_pixels(read_numbers(tensor, rows * PIXELS).reshape(rows, PIXELS))
    return PIXEL_MAX - images if invert else images


def _read_columns(columns: Sequence[Tensor], max_rows: int) -> np.ndarray:
    """Images from a column for each pixel, in order, as MLServer's PandasCodec sends a table."""
    if len(columns) != PIXELS:
        raise RequestError(
            f"expected one input tensor, or {PIXELS} columns of a pixel each, got {len(columns):,}"
        )
    shape = tuple(columns[0].shape)
    if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise RequestError(f"expected columns of shape [n] or [n, 1], got {list(shape)}")
    rows = check_row_count(shape[0], max_rows, shape, "images")
    values = []
    for column in columns:
        check_datatype(column.datatype, list(DTYPES))
        if tuple(column.shape) != shape:
            raise RequestError(
                f"expected columns of one shape, {list(shape)}, got {list(column.shape)}"
            )
        values.append(read_numbers(column, rows).reshape(rows))
    return validate_pixels(np.stack(values, axis=1))


def validate_pixels(images: np.ndarray) -> np.ndarray:
    """Images, any numbers [n, 784], 0 to 255, rounded (halves to even) to uint8 [n, 784].

    Raises PixelError for another shape, for values that are not numbers, NaN, infinity or out of
    range, and for fractions that are all at most 1: pixels divided by 255, nearly black.
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
    if not (images.min() >= 0 and images.max() <= PIXEL_MAX):  # NaN is neither
        row, pixel = np.argwhere(~((images >= 0) & (images <= PIXEL_MAX)))[0]
        raise PixelError(
            f"expected pixel values from 0 to {PIXEL_MAX}, "
            f"got {images[row, pixel]:.6g} at image {row}, pixel {pixel}"
        )
    if images.max() <= 1:
        raise PixelError(
            f"expected pixel values from 0 to {PIXEL_MAX}, got fractions of at most 1; "
            f"multiply them by {PIXEL_MAX}"
        )
    return np.rint(images).astype(np.uint8)


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
    is_base64 = tensor.parameters.get("content_type") == "base64"
    images, left = np.empty((rows, PIXELS), np.uint8), MAX_PIXELS_A_REQUEST
    for index, file in enumerate(files):
        try:
            picture = open_picture(_decoded(file, is_base64))
            left -= picture.width * picture.height
            if left < 0:
                raise PixelError(
                    f"pictures of at most {MAX_PIXELS_A_REQUEST:,} pixels in all, got more"
                )
            images[index] = fit_picture(picture, invert)
        except PixelError as error:
            raise RequestError(f"expected {error}, at image {index}") from None
    return images


def _decoded(file: Any, is_base64: bool) -> bytes:
    """A picture's file. Text is base64, as are bytes with that content type, or that look so."""
    if isinstance(file, str):
        return decode_base64(file.encode("utf-8", "replace"))
    if not isinstance(file, bytes):
        raise PixelError(f"a picture's file, got {quote(file)}")
    if is_base64:
        return decode_base64(file)
    if not is_picture(file) and BASE64.fullmatch(file):
        with suppress(PixelError):
            decoded = decode_base64(file)
            return decoded if is_picture(decoded) else file
    return file


def decode_base64(text: bytes) -> bytes:
    """Decodes base64, in lines or not, of either alphabet, padded or not, or a data URL.

    Raises PixelError.
    """
    plain = SPACE.sub(b"", DATA_URL.sub(b"", text)).translate(URL_SAFE).rstrip(b"=")
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except binascii.Error as error:
        raise PixelError(f"base64, got an error: {error}") from None
