"""WebP (RFC 9649): one frame; VP8X says whether there are more, EXIF data tell the orientation."""

from __future__ import annotations

import struct

from pictures import exif
from pictures.formats import WEBP, Body
from pictures.parts import Essence, most, too_many

_CHUNK = struct.Struct("<4sI")
_ANIMATED = 0x02


def webp(data: Body) -> Essence:
    """Raises Unsupported. libwebp itself reads the chunks that hold pixels, and Pillow no other one."""
    place, chunks, orientation, several = 12, 0, 1, False
    while place + 8 <= len(data):
        name, length = _CHUNK.unpack_from(data, place)
        body = place + 8
        if name == b"VP8X" and length and body < len(data):
            several = bool(data[body] & _ANIMATED)
        elif name == b"EXIF":
            orientation = exif.orientation(bytes(data[body : body + min(length, exif.LIMIT)]))
        place = body + length + (length & 1)
        chunks += 1
        if chunks > most(data):
            raise too_many()
    return Essence(data, WEBP, orientation, several)
