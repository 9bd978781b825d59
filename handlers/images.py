"""One PNG or JPEG file to one row of pixels.

A file is refused before it is decoded unless its header states the policy's own size, so a small file cannot
unfold into a large picture, and unless it has few parts for its length (handlers/parts.py), so none takes seconds to
read. Gray, bilevel, palette and RGB pictures are converted to the policy's channels. A picture is turned as its EXIF
orientation says: its pixels are those that every viewer shows. Pictures whose pixels would have to be guessed are
refused: alpha needs a background, 16 bits a scale, several frames a choice.
"""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from defenses.policy import Input
from handlers import parts
from handlers.errors import RequestError, Undecodable, UnsupportedImage, WrongShape

FORMATS = ("PNG", "JPEG")
Image.preinit()  # or the first request waits while Pillow imports its formats
# Offset of the bit depth in a PNG file: signature 8, chunk length and name 8, width and height 8.
PNG_DEPTH = 24
# What brings the picture of an EXIF orientation upright. 1 is upright; 5 to 8 exchange width and height.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(data: bytes | bytearray, expects: Input) -> NDArray[np.float32]:
    """The file's pixels (C,H,W) float32 in [0, 1], byte / 255. Raises Undecodable, UnsupportedImage, WrongShape."""
    if parts.too_many(data):
        raise UnsupportedImage("expected a picture of few parts, got far more; save it again without what is beside it")
    try:
        with warnings.catch_warnings():
            # of what Pillow reads past: the words hold a client's values, and Python keeps each for good
            warnings.simplefilter("ignore")
            pixels = _read(data, expects)
    except (RequestError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise WrongShape(f"expected {expects.width} x {expects.height} pixels, got far more") from None
    except Exception as error:
        # Pillow raises whatever its parsers meet, OSError, SyntaxError or struct.error: each time a broken file
        raise Undecodable("expected an intact PNG or JPEG file; this one cannot be decoded") from error
    pixels /= 255
    return pixels[np.newaxis] if expects.channels == 1 else pixels.transpose(2, 0, 1)


def _read(data: bytes | bytearray, expects: Input) -> NDArray[np.float32]:
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        _check(image, data, expects)
        return np.asarray(_upright(image, expects).convert("L" if expects.channels == 1 else "RGB"), np.float32)


def write_image(pixels: NDArray[np.float32], format_: str) -> bytes:
    """A row (C,H,W) in [0, 1], C 1 or 3, as a file of 8 bits a channel: pixels are rounded; JPEG changes more."""
    levels = np.rint(pixels * 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(file, format_)
    return file.getvalue()


def _check(image: Image.Image, data: bytes | bytearray, expects: Input) -> None:
    """Judge a picture by its header alone; whether it lies on its side is known later."""
    if image.size not in ((expects.width, expects.height), (expects.height, expects.width)):
        raise _wrong_size(image, expects)
    if getattr(image, "n_frames", 1) > 1:
        raise UnsupportedImage("expected a single picture, got several frames")
    if image.has_transparency_data:
        raise UnsupportedImage("expected a picture without transparency; put it on a background first")
    if image.format == "PNG" and data[PNG_DEPTH] == 16:
        raise UnsupportedImage("expected 8 bits a channel, got 16; scale the picture first")
    if image.mode not in ("1", "L", "P", "RGB"):
        raise UnsupportedImage("expected a gray, palette or RGB picture, got another colour space")


def _upright(image: Image.Image, expects: Input) -> Image.Image:
    """The picture as viewers show it."""
    turn = TURNS.get(_orientation(image))
    upright = image if turn is None else image.transpose(turn)
    if upright.size != (expects.width, expects.height):
        raise _wrong_size(upright, expects)
    return upright


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 where there is none that can be read, as viewers have it."""
    image.load()  # a PNG file may tell it behind its pixels; what cannot be decoded is no matter of orientation
    try:
        told = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's parsers again, here of something that is not needed
        return 1
    return told if isinstance(told, int) else 1


def _wrong_size(image: Image.Image, expects: Input) -> WrongShape:
    return WrongShape(f"expected {expects.width} x {expects.height} pixels, got {image.size[0]} x {image.size[1]}")
