"""The parts of a file that decide its pixels, extracted before Pillow sees it; and the orientation.

What counts stands in each format's module, the bounds in pictures/parts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pictures.bitmaps import bmp, ppm
from pictures.errors import Broken
from pictures.formats import BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP, Body, format_of
from pictures.gif import gif
from pictures.jpeg import jpeg
from pictures.parts import Essence
from pictures.png import png
from pictures.tiff import tiff
from pictures.webp import webp

READERS: Mapping[str, Callable[[Body], Essence]] = {
    PNG: png,
    JPEG: jpeg,
    WEBP: webp,
    GIF: gif,
    BMP: bmp,
    TIFF: tiff,
    PPM: ppm,
}


def essence(data: Body) -> Essence:
    """What decides the pixels of a file. Raises Unsupported, Broken."""
    format_ = format_of(data)
    if format_ is None:
        raise Broken(f"expected a picture ({', '.join(READERS)}), got what begins as none of them")
    return READERS[format_](data)
