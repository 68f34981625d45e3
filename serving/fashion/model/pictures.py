"""A picture's file as an image of the kind that the models know: 28 × 28, grey, bright on black.

The steps are those of the data set's makers (Xiao, Rasul and Vollgraf, Fashion-MNIST,
arXiv 1708.07747, section 2.1): grey, negated where the ground is bright, the longer
edge scaled to 28 pixels, centred on black.
"""

import re
import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..contract import PIXELS, SIDE
from ..inference.errors import RequestError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
NAMES = "PNG, JPEG, WebP or BMP"
SIGNATURES = re.compile(rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP|BM", re.DOTALL)
MAX_PIXELS = 4096 * 4096  # of a decoded picture: 64 MB with its four channels
MAX_PIXELS_JPEG = 64 * 1024 * 1024  # which is decoded at a half, a quarter or an eighth of its size
MAX_PIXELS_A_REQUEST = 256 * 1024 * 1024  # about two seconds
DRAFT_SIDE = 1024  # pixels at least, of a JPEG's edge that is decoded smaller
LONGEST_TO_SHORTEST = SIDE  # of a picture's edges
# What Pillow, and its readers of chunks and tags, raise for damaged files.
DAMAGED = OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error, zlib.error


class PixelError(RequestError):
    """Pixels that no image has; the message has what was expected and the actual values."""


def is_picture(content: bytes) -> bool:
    """Whether a file begins as a picture does."""
    return SIGNATURES.match(content) is not None


def read_picture(content: bytes, invert: bool) -> np.ndarray:
    """A picture's pixels, uint8 [784]; a grey one of 28 × 28 stays as it is.

    content: of a file; invert: for dark clothes on a bright ground. Transparent pixels become
    ground. Raises PixelError.
    """
    return fit_picture(open_picture(content), invert)


def open_picture(content: bytes) -> Image.Image:
    """A picture, its pixels not decoded yet. Raises PixelError."""
    try:
        picture = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise PixelError(f"a {NAMES} file, got {_describe(content)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PixelError(f"a picture of at most {MAX_PIXELS:,} pixels, got more") from None
    except DAMAGED as error:
        raise PixelError(f"a whole {NAMES} file, got a damaged one: {error}") from None
    most = MAX_PIXELS_JPEG if picture.format == "JPEG" else MAX_PIXELS
    width, height = picture.size
    if width * height > most:
        size = f"{width:,} × {height:,}"
        raise PixelError(f"a picture of at most {most:,} pixels, got {size}")
    if max(width, height) > LONGEST_TO_SHORTEST * min(width, height):
        raise PixelError(
            f"a picture whose longer edge is at most {LONGEST_TO_SHORTEST} times the shorter, "
            f"got {width:,} × {height:,}"
        )
    return picture


def fit_picture(picture: Image.Image, invert: bool) -> np.ndarray:
    """See `read_picture`."""
    try:
        if picture.width * picture.height > MAX_PIXELS:
            picture.draft("RGB", (DRAFT_SIDE, DRAFT_SIDE))
        grey = _grey(ImageOps.exif_transpose(picture), ground=255 if invert else 0)
    except DAMAGED as error:
        raise PixelError(f"a whole {NAMES} file, got a damaged one: {error}") from None
    if invert:
        grey = ImageOps.invert(grey)
    fitted = ImageOps.contain(grey, (SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(ImageOps.pad(fitted, (SIDE, SIDE), color=0), np.uint8).reshape(PIXELS)


def _grey(picture: Image.Image, ground: int) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(picture, np.uint32) // 257).clip(0, 255).astype("uint8"))
    if picture.has_transparency_data:
        opaque = Image.new("RGBA", picture.size, (ground, ground, ground, 255))
        picture = Image.alpha_composite(opaque, picture.convert("RGBA"))
    return picture.convert("L")


def _describe(content: bytes) -> str:
    return f"{len(content):,} bytes that begin with {content[:8]!r}" if content else "no bytes"
