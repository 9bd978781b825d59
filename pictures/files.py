"""A picture's file, opened as viewers show it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

# where Pillow looks for an orientation that EXIF data do not state, as viewers do not
ELSEWHERE = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")
ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


class PictureError(ValueError):
    """A file that is no picture, or a broken one."""


def opened(file: Path) -> Image.Image:
    """The picture, turned as its EXIF data say, "L" or "RGB". Raises PictureError."""
    try:
        with Image.open(file) as image:
            upright = _upright(image)
            return upright if upright.mode in ("L", "RGB") else upright.convert("RGB")
    except Exception as error:  # Pillow's parsers raise any: OSError, SyntaxError, struct.error
        raise PictureError(
            f"{file}: not a readable picture: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    """The picture as viewers show it, and as the server turns what it is asked about (handlers/essence.py)."""
    image.load()  # a PNG file may tell its orientation behind its pixels
    for other in ELSEWHERE:
        image.info.pop(other, None)
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data that cannot be read mean nothing
        return image
