"""JPEG (T.81, B.2): DQT, DHT, DAC, DRI, the frame header, DNL, DHP, EXP, and all from the first scan on; of the
application segments JFIF's (T.871) and Adobe's (T.872), which say what colour space the samples are in.

Every other application segment, comments, and what stands between segments are dropped. EXIF data (APP1 before the
first scan) tell the orientation, MPF data (APP2) whether there are several pictures. A file that cannot be parsed is
left as it is up to there, for Pillow to refuse.
"""

from __future__ import annotations

import struct

from pictures import exif
from pictures.formats import JPEG, Body
from pictures.parts import Essence, Kept, broken, most, room, too_many

SIGNATURE = b"\xff\xd8"
# kept segments, a quantization table each, before the scans, of which three to ten are usual; and the scans, which are
# ten in a progressive picture
KEPT = 32
SCANS = 64
# the largest side that a frame header can state
LARGEST = 65_535
_SIZE = struct.Struct(">HH")
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


def jpeg(data: Body) -> Essence:
    """Raises Unsupported, Broken."""
    kept, size, bound = Kept(data), len(data), most(data)
    place, end, dropped, weight = len(SIGNATURE), size, 0, 0
    metadata, index = b"", b""
    pixels, scans = LARGEST * LARGEST, 1
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
            end = min(size, place + room(pixels))
            scans = data.count(b"\xff\xda", place, end)
            if scans > SCANS:
                raise too_many()
            break
        else:
            length = max(2, data[place + 2] << 8 | data[place + 3])
            after = place + 2 + length
            colours = _COLOURS.get(marker)
            if marker not in _METADATA or (colours and data.startswith(colours, place + 4, after)):
                if (marker == _TABLES and length > _TABLES_MOST) or (marker in _FRAMES and length > _FRAME_MOST):
                    raise broken()
                if marker in _FRAMES and after <= size and length >= 8:
                    height, width = _SIZE.unpack_from(data, place + 5)
                    pixels = min(pixels, height * width)
                weight += 1 + (length // 65 if marker == _TABLES else 0)
                if weight > KEPT:
                    raise too_many()
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
        if dropped > bound:
            raise too_many()
        kept.drop(place, after)
        place = after
    several = bool(index) and (exif.number(index, _PICTURES) or 0) > 1 and data.find(_GAIN_MAP, 0, place) < 0
    return Essence(kept.until(end), JPEG, exif.orientation(metadata), several, scans)
