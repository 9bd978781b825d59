"""One picture's file to one row of pixels, by the decoder that training has too (pictures/picture.py).

Pillow sees of a file what decides pixels and nothing else, so that metadata cost nothing. A file is refused before it
is decoded where its header states another size than the policy takes, or more pixels than it allows, so that a small
file cannot unfold into a large picture.
"""

from __future__ import annotations

import sys
from io import BytesIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from handlers.errors import LoadError, RequestError, TooManyPixels, Undecodable, UnsupportedImage, WrongShape
from pictures.errors import Broken, OtherSize, PictureError, TooLarge, Unsupported
from pictures.formats import Body
from pictures.geometry import Geometry
from pictures.picture import Picture

# Pillow's oldest release that reads files safely, as far as that is known; for Python 3.10 there are none after 12.3
OLDEST = (13, 0) if sys.version_info >= (3, 11) else (12, 3)
FAULTS: dict[type[PictureError], type[RequestError]] = {
    Broken: Undecodable,
    Unsupported: UnsupportedImage,
    TooLarge: TooManyPixels,
    OtherSize: WrongShape,
}


def check_pillow(found: str) -> None:
    """Refuse a Pillow older than OLDEST. Raises LoadError."""
    if tuple(int(number) for number in found.split(".")[:2]) < OLDEST:
        raise LoadError(
            f"expected Pillow {OLDEST[0]}.{OLDEST[1]} or later, got {found}, which has known faults; "
            f"install requirements.lock again (make setup)"
        )


check_pillow(PIL.__version__)


def open_image(data: Body, expects: Geometry) -> Picture:
    """The file, judged by its header. Raises Undecodable, UnsupportedImage, WrongShape, TooManyPixels."""
    try:
        picture = Picture(data)
        picture.check(expects)
        return picture
    except PictureError as error:
        raise FAULTS[type(error)](str(error)) from error


def read_image(data: Body | Picture, expects: Geometry) -> NDArray[np.float32]:
    """The file's pixels (C,H,W) float32 in [0, 1], byte / 255. Raises Undecodable, UnsupportedImage, WrongShape,
    TooManyPixels."""
    picture = data if isinstance(data, Picture) else open_image(data, expects)
    try:
        pixels = picture.fitted(expects).astype(np.float32)
    except PictureError as error:
        raise FAULTS[type(error)](str(error)) from error
    pixels /= 255
    return pixels


def write_image(pixels: NDArray[np.float32], format_: str) -> bytes:
    """A row (C,H,W) in [0, 1], C 1 or 3, as a file of 8 bits a channel: pixels are rounded; JPEG changes more."""
    levels = np.rint(pixels * 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)).save(file, format_)
    return file.getvalue()
