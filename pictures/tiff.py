"""TIFF (6.0): the first directory, written anew with the tags that decide pixels and no other.

A directory may have 65,535 entries, each of which may stand for as many bytes as the file has. Pillow and libtiff read
what it names before they look at a pixel. Compressions are the four that need no decoder of another format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from pictures.errors import Unsupported
from pictures.formats import TIFF, Body
from pictures.parts import Essence, broken, too_many

ORIENTATION, COMPRESSION = 274, 259
# width, height, bits, compression, photometric, fill order, strips (3), samples a pixel, planes, predictor, colours,
# tiles (4), extra samples, sample format
PIXELS = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339),
)
# none, LZW, Deflate twice, PackBits
COMPRESSIONS = frozenset((1, 5, 8, 32946, 32773))
ENTRIES = 256
# values of one tag: the strips of a picture are at most its rows
VALUES = 65_536
_SIZES: Mapping[int, int] = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_ORDERS = {b"II": "<", b"MM": ">"}


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
    kept, orientation = [], 1
    for place in range(start + 2, end, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", data, place)
        number = struct.unpack_from(f"{order}H", data, place + 8)[0]
        if tag == ORIENTATION and (kind, values) == (3, 1):
            orientation = number
        if tag == COMPRESSION and number not in COMPRESSIONS:
            raise Unsupported("expected a TIFF file without compression, or with LZW, Deflate or PackBits, got another")
        if tag in PIXELS:
            if values > VALUES or kind not in _SIZES:
                raise broken()
            kept.append(bytes(data[place : place + 12]))
    several = struct.unpack_from(f"{order}I", data, end)[0] != 0
    padding = b"\0" * (len(data) % 2)
    header = bytes(data[:4]) + struct.pack(f"{order}I", len(data) + len(padding))
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    whole = b"".join((header, memoryview(data)[8:], padding, directory))
    return Essence(whole, TIFF, orientation if 1 <= orientation <= 8 else 1, several)
