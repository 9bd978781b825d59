"""PNG (third edition, 5.6): IHDR, PLTE and tRNS, once each; the one run of IDAT; IEND. Every other chunk is dropped.

EXIF data (eXIf) tell the orientation, acTL whether there are several frames. A file that cannot be parsed is left as it
is up to there, for Pillow to refuse.
"""

from __future__ import annotations

import struct

from pictures import exif
from pictures.formats import PNG, Body
from pictures.parts import FREE, STEP, Essence, Kept, broken, most, room, too_many

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# where width and height stand in the header: signature 8, chunk length and name 8
SIZE_AT = 16
DEPTH_AT = 24
_CHUNK = struct.Struct(">I4s")
_SIZE = struct.Struct(">II")
_ONCE = frozenset((b"IHDR", b"PLTE", b"tRNS"))


def png(data: Body) -> Essence:
    """Raises Unsupported, Broken."""
    kept, size, bound = Kept(data), len(data), most(data)
    width, height = _SIZE.unpack_from(data, SIZE_AT) if size >= SIZE_AT + 8 else (0, 0)
    enough = room(width * height)
    met: list[bytes] = []
    place, end, dropped, pieces, length_of_pixels, run = len(SIGNATURE), size, 0, 0, 0, True
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
            if dropped > bound:
                raise too_many()
            kept.drop(place, after)
            if name == b"eXIf":
                metadata = slice(place + 8, min(place + 8 + length, place + 8 + exif.LIMIT))
            elif name == b"acTL" and not pieces and length >= 8:
                claims.append(int.from_bytes(data[place + 8 : place + 12], "big"))
            elif name == b"fcTL" and not pieces:
                framed = True
        elif name == b"IDAT":
            pieces, length_of_pixels = pieces + 1, length_of_pixels + length
            run = length_of_pixels <= enough
            if pieces > FREE + length_of_pixels // STEP:
                raise too_many()
        elif name in met or not (met or name == b"IHDR"):
            raise broken()
        else:
            met.append(name)
        place = after
    # a claim of one frame is of one more, where that is not the picture itself; two claims are none
    several = len(claims) == 1 and (1 < claims[0] <= 0x80000000 or (claims[0] == 1 and not framed))
    deep = data[DEPTH_AT : DEPTH_AT + 1] == b"\x10"
    return Essence(kept.until(end), PNG, exif.orientation(bytes(data[metadata])), several, deep=deep)
