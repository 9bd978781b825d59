"""One PNG or JPEG file to one row of pixels.

A file is refused before it is decoded unless its header states the policy's own size, so a small file cannot
unfold into a large picture. Gray, bilevel, palette and RGB pictures are converted to the policy's channels.
Pictures whose pixels would have to be guessed are refused: alpha needs a background, 16 bits a scale, several
frames a choice.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defenses.policy import Input
from handlers.errors import RequestError, Undecodable, UnsupportedImage, WrongShape

FORMATS = ("PNG", "JPEG")
Image.preinit()  # or the first request waits while Pillow imports its formats
# Offset of the bit depth in a PNG file: signature 8, chunk length and name 8, width and height 8.
PNG_DEPTH = 24


def read_image(data: bytes | bytearray, expects: Input) -> NDArray[np.float32]:
    """The file's pixels (C,H,W) float32 in [0, 1], byte / 255. Raises Undecodable, UnsupportedImage, WrongShape."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _check(image, data, expects)
            pixels = np.asarray(image.convert("L" if expects.channels == 1 else "RGB"), np.float32)
    except (RequestError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise WrongShape(f"expected {expects.width} x {expects.height} pixels, got far more") from None
    except Exception as error:
        # Pillow raises whatever its parsers meet, OSError, SyntaxError or struct.error: each time a broken file
        raise Undecodable("expected an intact PNG or JPEG file; this one cannot be decoded") from error
    pixels /= 255
    return pixels[np.newaxis] if expects.channels == 1 else pixels.transpose(2, 0, 1)


def write_image(pixels: NDArray[np.float32], format_: str) -> bytes:
    """A row (C,H,W) in [0, 1], C 1 or 3, as a file of 8 bits a channel: pixels are rounded; JPEG changes more."""
    levels = np.rint(pixels * 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(file, format_)
    return file.getvalue()


def _check(image: Image.Image, data: bytes | bytearray, expects: Input) -> None:
    """Judge a picture by its header alone."""
    if image.size != (expects.width, expects.height):
        raise WrongShape(f"expected {expects.width} x {expects.height} pixels, got {image.size[0]} x {image.size[1]}")
    if getattr(image, "n_frames", 1) > 1:
        raise UnsupportedImage("expected a single picture, got several frames")
    if image.has_transparency_data:
        raise UnsupportedImage("expected a picture without transparency; put it on a background first")
    if image.format == "PNG" and data[PNG_DEPTH] == 16:
        raise UnsupportedImage("expected 8 bits a channel, got 16; scale the picture first")
    if image.mode not in ("1", "L", "P", "RGB"):
        raise UnsupportedImage("expected a gray, palette or RGB picture, got another colour space")
