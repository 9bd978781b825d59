"""PNG files, chunk by chunk: whole ones to begin with, and the pieces to build strange ones from."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# of Adam7: first column, first row, step across, step down of each pass
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class Chunk(NamedTuple):
    """A chunk as it should be; `bytes` adds length and checksum."""

    name: bytes
    data: bytes

    @property
    def bytes(self) -> bytes:
        checksum = zlib.crc32(self.name + self.data)
        return struct.pack(">I", len(self.data)) + self.name + self.data + struct.pack(">I", checksum)


END = Chunk(b"IEND", b"")


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    """The file of an image, by Pillow."""
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def chunks(file: bytes) -> list[Chunk]:
    """The chunks of an intact PNG file."""
    found, place = [], len(SIGNATURE)
    while place < len(file):
        (length,) = struct.unpack_from(">I", file, place)
        found.append(Chunk(file[place + 4 : place + 8], file[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def joined(parts: list[Chunk]) -> bytes:
    """The file of these chunks."""
    return SIGNATURE + b"".join(part.bytes for part in parts)


def header(
    width: int, height: int, depth: int = 8, colour: int = 0, *, rest: tuple[int, int, int] = (0, 0, 0)
) -> Chunk:
    """IHDR. rest: compression, filter and interlace methods."""
    return Chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, *rest))


def pixels(levels: NDArray[Any]) -> Chunk:
    """IDAT of rows of samples (H, bytes), none filtered."""
    return Chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in levels)))


def interlaced(levels: NDArray[np.uint8]) -> bytes:
    """A gray picture (H,W) in Adam7's seven passes, which Pillow reads and does not write."""
    height, width = levels.shape
    passes = [levels[top::down, left::across] for left, top, across, down in ADAM7]
    data = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    return joined([header(width, height, rest=(0, 0, 1)), Chunk(b"IDAT", zlib.compress(data)), END])


def sixteen_bits(levels: NDArray[np.uint8], colour: int) -> bytes:
    """A gray (colour 0) or RGB (colour 2) picture with 16 bits a sample."""
    height, width = levels.shape
    samples = levels.repeat(3 if colour == 2 else 1, axis=1).astype(">u2") * 257
    return joined([header(width, height, 16, colour), pixels(samples), END])
