"""What Pillow is to see of a file, and how many parts a file may have.

A picture's metadata may cost more to read than the picture, so each format's reader drops all that does not decide
pixels. Profiles and gammas are among it: pixels are the file's numbers, as they are where models are trained. What is
dropped is counted, and what is left has bounds too.
"""

from __future__ import annotations

from typing import NamedTuple

from pictures.errors import Broken, Unsupported
from pictures.formats import Body

# Parts that are dropped: FREE, and one more for each STEP bytes of the file, but never more than MOST. Cameras and
# editors write a dozen small ones, and kilobytes in each of the others. Pieces of a PNG file's pixels: FREE, and one
# more for each STEP bytes of these.
FREE = 64
STEP = 1024
MOST = 320
# pixel data: raw, 16 bits and four channels are 8 bytes a pixel
ROOM = 65_536
DEPTH = 16


class Essence(NamedTuple):
    """What Pillow is to see of a file, its format, the EXIF orientation, whether the file has several pictures, in how
    many scans its picture is stored, and whether samples have more than 8 bits."""

    data: Body
    format: str
    orientation: int = 1
    several: bool = False
    scans: int = 1
    deep: bool = False


class Kept:
    """A file without what is dropped of it."""

    def __init__(self, data: Body) -> None:
        self._data = data
        self._view = memoryview(data)
        self._pieces: list[memoryview] = []
        self._start = 0

    def drop(self, first: int, after: int) -> None:
        """Leave out the bytes from `first` to before `after`."""
        if first > self._start:
            self._pieces.append(self._view[self._start : first])
        self._start = after

    def until(self, end: int) -> Body:
        """The rest up to `end`; the file itself where that is all of it."""
        if not self._start and end >= len(self._data):
            return self._data
        return b"".join([*self._pieces, self._view[self._start : end]])


def room(pixels: int) -> int:
    """The bytes behind which there is no data of so many pixels."""
    return ROOM + DEPTH * pixels


def most(data: Body) -> int:
    """How many parts may be dropped of a file."""
    return min(FREE + len(data) // STEP, MOST)


def too_many() -> Unsupported:
    """Of files with more parts than pictures have."""
    return Unsupported("expected a picture of few parts, got far more; save it again without what is beside it")


def broken() -> Broken:
    """Of files that cannot be parsed."""
    return Broken("expected an intact picture; this one cannot be decoded")
