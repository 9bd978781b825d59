"""TIFF (6.0): the first directory, written anew with the tags that decide pixels and no other.

A directory may have 65,535 entries, each of which may stand for as many bytes as the file has. Pillow and libtiff read
what it names before they look at a pixel. Compressions are the four that need no decoder of another format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from pictures.errors import Unsupported
from pictures.formats import TIFF, Body
from pictures.parts import Essence, broken, too_many

ORIENTATION, COMPRESSION = 274, 259
WIDTH, HEIGHT, BITS, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 322, 323
SIDES = frozenset((WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT))
# width, height, bits, compression, photometric, fill order, strips (3), samples a pixel, planes, predictor, colours,
# tiles (4), extra samples, sample format
PIXELS = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339),
)
# none, LZW, Deflate twice, PackBits
COMPRESSIONS = frozenset((1, 5, 8, 32946, 32773))
ENTRIES = 256
# strips and tiles are each read by themselves: a picture has STRIPS, and one more for each STRIP of its pixels
STRIPS = 4096
STRIP = 256
# tiles stand over a picture's edges, and are read whole: so many pixels, or so many times the picture's
TILES = 2**20
OVER = 4
# whole numbers by their types; what decides pixels is stated in no others
_FORMATS: Mapping[int, str] = {1: "B", 3: "H", 4: "I", 7: "B"}
_ORDERS = {b"II": "<", b"MM": ">"}


class Stated(NamedTuple):
    """How many values an entry has, and the first of them, or their place where they do not stand inside the entry."""

    values: int
    number: int
    inside: bool = True


NONE = Stated(0, 0)


def tiff(data: Body) -> Essence:
    """Raises Unsupported, Broken."""
    order = _ORDERS[bytes(data[:2])]
    start = struct.unpack_from(f"{order}I", data, 4)[0] if len(data) >= 8 else 0
    if start < 8 or start + 2 > len(data):
        raise broken()
    count = struct.unpack_from(f"{order}H", data, start)[0]
    if count > ENTRIES:
        raise too_many()
    end = start + 2 + 12 * count
    if not count or end + 4 > len(data):
        raise broken()
    kept, orientation, stated = [], 1, {}
    for place in range(start + 2, end, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", data, place)
        number = struct.unpack_from(f"{order}H", data, place + 8)[0]
        if tag == ORIENTATION and (kind, values) == (3, 1):
            orientation = number
        if tag == COMPRESSION and number not in COMPRESSIONS:
            raise Unsupported("expected a TIFF file without compression, or with LZW, Deflate or PackBits, got another")
        if tag in PIXELS:
            if tag in stated or kind not in _FORMATS or (tag in SIDES and values != 1):
                raise broken()
            inside = values * struct.calcsize(_FORMATS[kind]) <= 4
            first = struct.unpack_from(order + (_FORMATS[kind] if inside else "I"), data, place + 8)[0]
            stated[tag] = Stated(values, first, inside)
            kept.append(bytes(data[place : place + 12]))
    _check_tiles(stated)
    several = struct.unpack_from(f"{order}I", data, end)[0] != 0
    padding = b"\0" * (len(data) % 2)
    header = bytes(data[:4]) + struct.pack(f"{order}I", len(data) + len(padding))
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    whole = b"".join((header, memoryview(data)[8:], padding, directory))
    deep = BITS in stated and _bits(data, order, stated[BITS]) > 8
    return Essence(whole, TIFF, orientation if 1 <= orientation <= 8 else 1, several, deep=deep)


def _bits(data: Body, order: str, stated: Stated) -> int:
    """Of the first sample."""
    if stated.inside:
        return stated.number
    place = stated.number
    return int(struct.unpack_from(f"{order}H", data, place)[0]) if place + 2 <= len(data) else 0


def _check_tiles(stated: Mapping[int, Stated]) -> None:
    """Raises Unsupported for more strips and tiles, or larger ones, than pictures have."""
    width, height = (stated.get(tag, NONE).number for tag in (WIDTH, HEIGHT))
    most = STRIPS + width * height // STRIP
    if any(number.values > most for number in stated.values()):
        raise too_many()
    across, down = (stated.get(tag, NONE).number for tag in (TILE_WIDTH, TILE_HEIGHT))
    if across > 0 and down > 0:
        covered = -(-width // across) * across * (-(-height // down) * down)
        if covered > max(TILES, OVER * width * height):
            raise Unsupported("expected a TIFF file whose tiles cover its picture, got far larger ones")
