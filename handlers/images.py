"""One PNG or JPEG file to one row of pixels.

Pillow sees of a file what decides pixels and nothing else (handlers/essence.py), so that metadata cost nothing. A file
is refused before it is decoded unless its header states the policy's size, so a small file cannot unfold into a
large picture. Gray, bilevel, palette and RGB pictures are converted to the policy's channels. A picture is turned by
its EXIF orientation: its pixels are those that every viewer shows. Pictures whose pixels would have to be guessed are
refused: alpha needs a background, 16 bits a scale, several frames a choice.
"""

from __future__ import annotations

import sys
import warnings
from io import BytesIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from defenses.policy import Input
from handlers.errors import LoadError, RequestError, Undecodable, UnsupportedImage, WrongShape
from handlers.essence import Body, Essence, essence

FORMATS = ("PNG", "JPEG")
# Pillow's oldest release that reads them safely, as far as that is known; for Python 3.10 there are none after 12.3
OLDEST = (13, 0) if sys.version_info >= (3, 11) else (12, 3)
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


def check_pillow(found: str) -> None:
    """Refuse a Pillow older than OLDEST. Raises LoadError."""
    if tuple(int(number) for number in found.split(".")[:2]) < OLDEST:
        raise LoadError(
            f"expected Pillow {OLDEST[0]}.{OLDEST[1]} or later, got {found}, which has known faults; "
            f"install requirements.lock again (make setup)"
        )


check_pillow(PIL.__version__)


def read_image(data: Body, expects: Input) -> NDArray[np.float32]:
    """The file's pixels (C,H,W) float32 in [0, 1], byte / 255. Raises Undecodable, UnsupportedImage, WrongShape."""
    try:
        with warnings.catch_warnings():
            # of what Pillow reads past: the words hold a client's values, and Python keeps each for good
            warnings.simplefilter("ignore")
            pixels = _read(essence(data, expects.width * expects.height), expects)
    except (RequestError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise WrongShape(f"expected {expects.width} x {expects.height} pixels, got far more") from None
    except Exception as error:
        # Pillow raises any error of its parsers, OSError, SyntaxError or struct.error: each time a broken file
        raise Undecodable("expected an intact PNG or JPEG file; this one cannot be decoded") from error
    pixels /= 255
    return pixels[np.newaxis] if expects.channels == 1 else pixels.transpose(2, 0, 1)


def _read(file: Essence, expects: Input) -> NDArray[np.float32]:
    with Image.open(BytesIO(file.data), formats=FORMATS) as image:
        _check(image, file, expects)
        turn = TURNS.get(file.orientation)
        upright = image if turn is None else image.transpose(turn)
        if upright.size != (expects.width, expects.height):
            raise _wrong_size(upright, expects)
        return np.asarray(upright.convert("L" if expects.channels == 1 else "RGB"), np.float32)


def write_image(pixels: NDArray[np.float32], format_: str) -> bytes:
    """A row (C,H,W) in [0, 1], C 1 or 3, as a file of 8 bits a channel: pixels are rounded; JPEG changes more."""
    levels = np.rint(pixels * 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(file, format_)
    return file.getvalue()


def _check(image: Image.Image, file: Essence, expects: Input) -> None:
    """Judge a picture by its header alone, lying on its side or not."""
    if image.size not in ((expects.width, expects.height), (expects.height, expects.width)):
        raise _wrong_size(image, expects)
    if file.several:
        raise UnsupportedImage("expected a single picture, got several frames")
    if image.has_transparency_data:
        raise UnsupportedImage("expected a picture without transparency; put it on a background first")
    if image.format == "PNG" and file.data[PNG_DEPTH] == 16:
        raise UnsupportedImage("expected 8 bits a channel, got 16; scale the picture first")
    if image.mode not in ("1", "L", "P", "RGB"):
        raise UnsupportedImage("expected a gray, palette or RGB picture, got another colour space")


def _wrong_size(image: Image.Image, expects: Input) -> WrongShape:
    return WrongShape(f"expected {expects.width} x {expects.height} pixels, got {image.size[0]} x {image.size[1]}")
