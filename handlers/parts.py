"""How many parts a picture file has: the work of reading it, before anyone does.

Pillow reads PNG chunks and JPEG segments one by one in Python, some microseconds each: 3 MB of empty segments took it
ten seconds. A file may have FREE parts, and one more for each STEP bytes of it: cameras and editors write a dozen small
parts, and kilobytes in each of the others. What is counted is what Pillow meets: every chunk, every segment before the
pixels, every byte of padding or junk between segments, and every scan.
"""

from __future__ import annotations

FREE = 64
STEP = 1024

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_SCAN = 0xDA
# markers that no length follows: an escape, restarts, start and end, and what was kept for extensions
_BARE = frozenset((0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))


def too_many(data: bytes | bytearray) -> bool:
    """Whether a PNG or JPEG file has more parts than its length allows. Other files have none."""
    most = FREE + len(data) // STEP
    if data[: len(_PNG)] == _PNG:
        return _chunks(data, most) > most
    if data[: len(_JPEG)] == _JPEG:
        return _segments(data, most) > most
    return False


def _chunks(data: bytes | bytearray, most: int) -> int:
    """The PNG chunks to the one that ends the picture, or the first `most` and one."""
    place, count = len(_PNG), 0
    while place < len(data) and count <= most:
        count += 1
        if data[place + 4 : place + 8] == b"IEND":
            break
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return count


def _segments(data: bytes | bytearray, most: int) -> int:
    """The JPEG segments and the junk before the pixels, and the scans, or at least `most` and one."""
    place, count = len(_JPEG), 0
    while place + 1 < len(data) and count <= most:
        count += 1
        marker = data[place + 1]
        if data[place] != 0xFF or marker == 0xFF:
            place += 1
        elif marker == _SCAN:
            return count + data.count(b"\xff\xda", place + 2)
        elif marker in _BARE:
            place += 2
        else:
            place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
    return count
