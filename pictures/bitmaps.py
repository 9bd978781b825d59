"""BMP and PPM: a header, then pixels as they are. Their text and run-length forms are decoded in Python, so refused."""

from __future__ import annotations

from pictures.errors import Unsupported
from pictures.formats import BMP, PPM, Body
from pictures.parts import Essence, broken

# a PPM file's header is three numbers, and whatever comments somebody wrote between them
HEADER = 1024
_RUNS = (1, 2)


def bmp(data: Body) -> Essence:
    """Raises Unsupported."""
    if int.from_bytes(data[14:18], "little") >= 40 and int.from_bytes(data[30:34], "little") in _RUNS:
        raise Unsupported("expected a BMP file without compression, got one in run lengths")
    return Essence(data, BMP)


def ppm(data: Body) -> Essence:
    """Raises Unsupported, Broken."""
    numbers = b"\n".join(line.partition(b"#")[0] for line in bytes(data[2:HEADER]).split(b"\n")).split(maxsplit=3)[:3]
    if len(numbers) < 3 or not all(number.isdigit() for number in numbers):
        raise broken()
    if int(numbers[2]) != 255:
        raise Unsupported("expected a PPM file of 255 levels, got another number of them")
    return Essence(data, PPM)
