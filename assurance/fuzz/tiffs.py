"""TIFF files, entry by entry: a directory that says what it likes of a few bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES = 256, 257, 258, 259, 262, 274, 277
STRIPS, ROWS, STRIP_BYTES, PREDICTOR = 273, 278, 279, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 322, 323, 324, 325
RAW, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
SHORT, LONG = 3, 4
START = 8  # of the pixels

Entry = tuple[int, int, int, bytes]
"""Tag, type, number of values, and the values or their place."""


def gray(width: int, height: int, pixels: bytes, compression: int = RAW, **more: int) -> dict[int, Sequence[int]]:
    """The fields of a gray picture of 8 bits in one strip. more: others by their names here, in lower case."""
    fields: dict[int, Sequence[int]] = {
        WIDTH: [width],
        HEIGHT: [height],
        BITS: [8],
        COMPRESSION: [compression],
        PHOTOMETRIC: [1],
        STRIPS: [START],
        STRIP_BYTES: [len(pixels)],
    }
    return {**fields, **{globals()[name.upper()]: [value] for name, value in more.items()}}


def tiled(fields: Mapping[int, Sequence[int]], width: int, height: int) -> dict[int, Sequence[int]]:
    """The same with tiles of that size in place of strips."""
    rest = {tag: values for tag, values in fields.items() if tag not in (STRIPS, STRIP_BYTES)}
    sizes = {TILE_WIDTH: [width], TILE_HEIGHT: [height]}
    return {**rest, **sizes, TILES: fields[STRIPS], TILE_BYTES: fields[STRIP_BYTES]}


def tiff(fields: Mapping[int, Sequence[int]], pixels: bytes, more: Sequence[Entry] = (), following: int = 0) -> bytes:
    """The file, little-endian: pixels, long values, directory. more: entries as they are. following: the place of the
    next directory."""
    body = pixels + b"\0" * (len(pixels) % 2)
    entries: list[Entry] = list(more)
    for tag, values in fields.items():
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            packed, body = struct.pack("<I", START + len(body)), body + packed
        entries.append((tag, LONG, len(values), packed))
    entries.sort(key=lambda entry: entry[0])
    directory = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    header = b"II*\0" + struct.pack("<I", START + len(body))
    return header + body + struct.pack("<H", len(entries)) + directory + struct.pack("<I", following)
