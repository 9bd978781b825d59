"""Which format a file is of, by its first bytes: what stands in a name or a header is often wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Body: TypeAlias = bytes | bytearray

PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM = "PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"
SIGNATURES: Mapping[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": PNG,
    b"\xff\xd8\xff": JPEG,
    b"GIF87a": GIF,
    b"GIF89a": GIF,
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
}
# by the endings of files; what a folder has of other endings is left out and counted
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pnm"),
)
# those whose first four bytes are no little-endian float32 in [0, 1]: as one, they are negative or above 1
NO_NUMBER = frozenset((PNG, JPEG, WEBP))
# the first byte of each: most bodies that are no pictures are told apart by it
_FIRST = frozenset(b"\x89\xffGIMRBP")
# whole numbers of BMP's second header, of the versions there are
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def format_of(data: Body) -> str | None:
    """The format; None for what is none that is read."""
    if not data or data[0] not in _FIRST:
        return None
    for signature, name in SIGNATURES.items():
        if data.startswith(signature):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WEBP
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return BMP
    if data[:2] in (b"P5", b"P6") and data[2:3].isspace():
        return PPM
    return None
