"""One number of a TIFF directory, as EXIF and MPF data begin with one: where a picture's orientation stands.

    byte order 2, 42 2, offset of the first directory 4
    directory: count 2, then 12 bytes an entry: tag 2, type 2, count 4, value 4 (in place where it fits)

Nothing else of it is read, no other directory is followed, and no more than LIMIT bytes are looked at. Data that cannot
be read are ignored, as viewers do.
"""

from __future__ import annotations

import struct

import numpy as np

LIMIT = 65_536  # what one JPEG segment holds
ORIENTATION = 0x0112
_PREFIX = b"Exif\0\0"  # of a JPEG segment; some writers put it twice
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TYPES = {3: "H", 4: "I"}  # SHORT, LONG


def orientation(data: bytes) -> int:
    """The orientation that EXIF data state; 1, upright, where they state none."""
    return number(data.removeprefix(_PREFIX).removeprefix(_PREFIX), ORIENTATION) or 1


def number(data: bytes, tag: int) -> int | None:
    """The whole number of `tag` in the first directory of TIFF data; None where it has none that can be read."""
    order = _ORDERS.get(data[:4])
    if order is None or len(data) < 8:
        return None
    place = struct.unpack_from(f"{order}I", data, 4)[0] + 2
    if place > min(len(data), LIMIT):
        return None
    entries = min(struct.unpack_from(f"{order}H", data, place - 2)[0], (min(len(data), LIMIT) - place) // 12)
    found = np.flatnonzero(np.frombuffer(data, f"{order}u2", 6 * entries, place)[::6] == tag)
    if not len(found):
        return None
    at = place + 12 * int(found[0])
    type_, count = struct.unpack_from(f"{order}HI", data, at + 2)
    if type_ not in _TYPES or count != 1:
        return None
    return int(struct.unpack_from(order + _TYPES[type_], data, at + 8)[0])
