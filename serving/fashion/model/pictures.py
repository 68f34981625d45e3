"""A PNG or JPEG file as an image of the kind that the models know: 28 × 28, grey, bright on black.

What is done is what the data set's makers did to photographs (Xiao, Rasul and Vollgraf,
Fashion-MNIST, arXiv 1708.07747, section 2.1): grey, negated where the ground is bright, the longer
edge scaled to 28 pixels, centred on black.
"""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..contract import PIXELS, SIDE

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 4096 * 4096  # of a decoded picture: 64 MB with its four channels


class PixelError(ValueError):
    """Pixels that no image has; the message says what was expected and what came."""


def read_picture(content: bytes, invert: bool) -> np.ndarray:
    """A picture's pixels, uint8 [784]; a grey one of 28 × 28 comes through as it is.

    content: of a file; invert: for dark clothes on a bright ground. What is transparent becomes
    ground. Raises PixelError.
    """
    try:
        picture = Image.open(BytesIO(content), formats=FORMATS)
        if picture.width * picture.height > MAX_PIXELS:
            raise PixelError(
                f"a picture of at most {MAX_PIXELS:,} pixels, "
                f"got {picture.width:,} × {picture.height:,}"
            )
        grey = _grey(ImageOps.exif_transpose(picture), ground=255 if invert else 0)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        raise PixelError(f"a PNG or JPEG file, got {_shown(content)}") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, PixelError):
            raise
        raise PixelError(f"a whole PNG or JPEG file, got a damaged one: {error}") from None
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


def _shown(content: bytes) -> str:
    return f"{len(content):,} bytes that begin with {content[:8]!r}" if content else "no bytes"
