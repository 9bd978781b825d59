"""The parts of a PNG or JPEG file that decide its pixels, extracted before Pillow sees it; and the orientation.

A picture's metadata may cost more to read than the picture. So none of it is read but the orientation:

    PNG (third edition, 5.6): IHDR, PLTE and tRNS, once each; the one run of IDAT; IEND. Every other chunk is dropped.
    JPEG (T.81, B.2): DQT, DHT, DAC, DRI, the frame header, DNL, DHP, EXP, and all from the first scan on; of the
        application segments JFIF's (T.871) and Adobe's (T.872), which say what colour space the samples are in. Every
        other application segment, comments, and what stands between segments are dropped.

Profiles and gammas are among what is dropped: pixels are the file's numbers, as they are where models are trained.
Only EXIF data tell the orientation (eXIf; APP1 before the first scan): handlers/exif.py reads it. Several pictures show
in acTL and in MPF data in APP2.

What is left has bounds too. The parts that are dropped are counted, and so are those kept and the scans; pixel data
behind ROOM bytes and DEPTH a pixel are none. A PNG or JPEG file that cannot be parsed is left as it is up to there, for
Pillow to refuse; other files wholly.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

from handlers import exif
from handlers.errors import Undecodable, UnsupportedImage

Body: TypeAlias = bytes | bytearray

# Parts that are dropped: FREE, and one more for each STEP bytes of the file, but never more than MOST. Cameras and
# editors write a dozen small ones, and kilobytes in each of the others. Pieces of a PNG file's pixels: FREE, and one
# more for each STEP bytes of these.
FREE = 64
STEP = 1024
MOST = 320
# JPEG: kept segments, a quantization table each, before the scans, of which three to ten are usual; and the scans,
# which are ten in a progressive picture
KEPT = 32
SCANS = 64
# pixel data: raw, 16 bits and four channels are 8 bytes a pixel
ROOM = 65_536
DEPTH = 16

_PNG = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_ONCE = frozenset((b"IHDR", b"PLTE", b"tRNS"))

_JPEG = b"\xff\xd8"
_SCAN = 0xDA
_TABLES = 0xDB
_TABLES_MOST = 2 + 4 * (1 + 2 * 64)
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xDE))
_FRAME_MOST = 8 + 3 * 4
_METADATA = frozenset((*range(0xE0, 0xF0), 0xFE))
_COLOURS = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
# markers that no length follows: of no meaning before a scan, and those that libjpeg refuses there
_IDLE = frozenset((0x01, *range(0xD0, 0xD8)))
_REFUSED = frozenset((*range(0x02, 0xC0), 0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)))
# MPF's number of pictures; and the mark that the others are no separate pictures
_PICTURES = 0xB001
_GAIN_MAP = b' hdrgm:Version="'


class Essence(NamedTuple):
    """What Pillow is to see of a file, the EXIF orientation, and whether the file has several pictures."""

    data: Body
    orientation: int = 1
    several: bool = False


class _Kept:
    """A file without what is dropped of it."""

    def __init__(self, data: Body) -> None:
        self._data = data
        self._view = memoryview(data)
        self._pieces: list[memoryview] = []
        self._start = 0

    def drop(self, first: int, after: int) -> None:
        if first > self._start:
            self._pieces.append(self._view[self._start : first])
        self._start = after

    def until(self, end: int) -> Body:
        """The rest up to `end`; the file itself where that is all of it."""
        if not self._start and end >= len(self._data):
            return self._data
        return b"".join([*self._pieces, self._view[self._start : end]])


def essence(data: Body, pixels: int) -> Essence:
    """What decides the pixels of a file whose picture should have so many. Raises UnsupportedImage, Undecodable."""
    room = ROOM + DEPTH * pixels
    if data[: len(_PNG)] == _PNG:
        return _png(data, room)
    if data[: len(_JPEG)] == _JPEG:
        return _jpeg(data, room)
    return Essence(data)


def _png(data: Body, room: int) -> Essence:
    kept, size, most = _Kept(data), len(data), _most(data)
    met: list[bytes] = []
    place, end, dropped, pieces, length_of_pixels, run = len(_PNG), size, 0, 0, 0, True
    metadata, claims, framed = slice(0), [], False
    while place + 8 <= size:
        length, name = _CHUNK.unpack_from(data, place)
        after = place + 12 + length
        wanted = (name in _ONCE and not pieces) or (name == b"IDAT" and run)
        if not name.isalpha() or after > size + 4:
            end = size if wanted else place + 8
            break
        if name == b"IEND":
            end = after
            break
        if not wanted:
            run, dropped = not pieces, dropped + 1
            if dropped > most:
                raise _too_many()
            kept.drop(place, after)
            if name == b"eXIf":
                metadata = slice(place + 8, min(place + 8 + length, place + 8 + exif.LIMIT))
            elif name == b"acTL" and not pieces and length >= 8:
                claims.append(int.from_bytes(data[place + 8 : place + 12], "big"))
            elif name == b"fcTL" and not pieces:
                framed = True
        elif name == b"IDAT":
            pieces, length_of_pixels = pieces + 1, length_of_pixels + length
            run = length_of_pixels <= room
            if pieces > FREE + length_of_pixels // STEP:
                raise _too_many()
        elif name in met or not (met or name == b"IHDR"):
            raise _broken()
        else:
            met.append(name)
        place = after
    # a claim of one frame is of one more, where that is not the picture itself; two claims are none
    several = len(claims) == 1 and (1 < claims[0] <= 0x80000000 or (claims[0] == 1 and not framed))
    return Essence(kept.until(end), exif.orientation(bytes(data[metadata])), several)


def _jpeg(data: Body, room: int) -> Essence:
    kept, size, most = _Kept(data), len(data), _most(data)
    place, end, dropped, weight = len(_JPEG), size, 0, 0
    metadata, index = b"", b""
    while place + 1 < size:
        marker = data[place + 1]
        if data[place] != 0xFF or marker == 0xFF:
            after = place + 1
        elif not marker or marker in _IDLE:
            after = place + 2
        elif marker in _REFUSED or place + 4 > size:
            end = place + 4
            break
        elif marker == _SCAN:
            end = min(size, place + room)
            if data.count(b"\xff\xda", place, end) > SCANS:
                raise _too_many()
            break
        else:
            length = max(2, data[place + 2] << 8 | data[place + 3])
            after = place + 2 + length
            colours = _COLOURS.get(marker)
            if marker not in _METADATA or (colours and data.startswith(colours, place + 4, after)):
                if (marker == _TABLES and length > _TABLES_MOST) or (marker in _FRAMES and length > _FRAME_MOST):
                    raise _broken()
                weight += 1 + (length // 65 if marker == _TABLES else 0)
                if weight > KEPT:
                    raise _too_many()
                place = after
                continue
            if after > size:
                end = place + 4
                break
            if marker == 0xE1 and data.startswith(b"Exif\0\0", place + 4, after) and len(metadata) < exif.LIMIT:
                metadata += data[place + 10 : after]
            elif marker == 0xE2 and data.startswith(b"MPF\0", place + 4, after):
                index = bytes(data[place + 8 : after])
        dropped += 1
        if dropped > most:
            raise _too_many()
        kept.drop(place, after)
        place = after
    several = bool(index) and (exif.number(index, _PICTURES) or 0) > 1 and data.find(_GAIN_MAP, 0, place) < 0
    return Essence(kept.until(end), exif.orientation(metadata), several)


def _most(data: Body) -> int:
    return min(FREE + len(data) // STEP, MOST)


def _too_many() -> UnsupportedImage:
    return UnsupportedImage("expected a picture of few parts, got far more; save it again without what is beside it")


def _broken() -> Undecodable:
    return Undecodable("expected an intact PNG or JPEG file; this one cannot be decoded")
