"""Pictures in the other formats: good ones of any size, damaged, bent field by field, with sizes that lie, as bombs."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from assurance.fuzz import tiffs
from assurance.fuzz.case import Case, Make, Subject
from assurance.fuzz.pictures import colours, gray, picture, posted_files
from assurance.fuzz.pngs import saved

FORMS = ("WEBP", "BMP", "TIFF", "GIF", "PPM")
ALL = ("PNG", "JPEG", *FORMS)
# of a side, as headers state them
SIDES = (0, 1, 27, 28, 29, 5_000, 9_000, 16_383, 30_000, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
STUFFED = 100_000  # bytes of what is put in by the thousand


def options(rng: Random, form: str) -> dict[str, Any]:
    """Ways in which Pillow writes the format."""
    if form == "WEBP":
        return rng.choice([{}, {"lossless": True, "method": 0}, {"quality": 5}])
    if form == "TIFF":
        return {"compression": rng.choice([None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])}
    return {"interlace": rng.choice([0, 1])} if form == "GIF" else {}


def file(rng: Random, subject: Subject, form: str) -> bytes:
    """A good file of the subject's size."""
    image = picture(rng, subject)
    if form == "PPM":
        image = image.convert(rng.choice(["L", "RGB"]))
    return saved(image.convert("RGB") if form in ("WEBP", "JPEG") else image, form, **options(rng, form))


def any_file(rng: Random, subject: Subject) -> bytes:
    return file(rng, subject, rng.choice(ALL))


def intact(rng: Random, subject: Subject) -> Case:
    """Good files."""
    form = rng.choice(FORMS)
    return posted_files(f"intact-{form}", rng, subject, file(rng, subject, form))


def any_size(rng: Random, subject: Subject) -> Case:
    """Good files of other sizes and proportions: some policies take them all."""
    form = rng.choice(ALL)
    size = rng.choice(
        [(1, 1), (640, 480), (480, 640), (29, 27), (56, 56), (2_000, 3), (3, 2_000), (60_000, 1), (1, 9_000)]
    )
    if form == "WEBP":
        size = (min(size[0], 16_383), min(size[1], 16_383))
    return posted_files("any-size", rng, subject, saved(colours(rng, subject).resize(size), form, **options(rng, form)))


def damaged(rng: Random, subject: Subject) -> Case:
    """Cut, bits turned over, a stretch replaced, mostly in the header."""
    form = rng.choice(FORMS)
    data = bytearray(file(rng, subject, form))
    act = rng.choice(["cut", "flip", "flip", "stretch", "zeros", "ones"])
    if act == "cut":
        return posted_files(f"cut-{form}", rng, subject, bytes(data[: rng.randrange(len(data))]))
    reach = rng.choice([min(64, len(data)), len(data)])
    for _ in range(rng.choice([1, 2, 8, 32]) if act == "flip" else 1):
        at = rng.randrange(reach)
        length = rng.randint(1, 8)
        if act == "flip":
            data[at] ^= 1 << rng.randrange(8)
        else:
            stretch = {"stretch": rng.randbytes(length), "zeros": bytes(length), "ones": b"\xff" * length}[act]
            data[at : at + length] = stretch
    return posted_files(f"damaged-{form}", rng, subject, bytes(data))


def sizes(rng: Random, subject: Subject) -> Case:
    """A header that states a side from 0 to 2^32 - 1, above data of another size."""
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    form = rng.choice(ALL)
    data = bytearray(file(rng, subject, form))
    if form == "PNG":
        checked = bytes(data[12:16]) + struct.pack(">II", width, height) + bytes(data[24:29])
        data[12:33] = checked + struct.pack(">I", zlib.crc32(checked))
    elif form == "JPEG":
        at = data.find(b"\xff\xc0") if b"\xff\xc0" in data else data.find(b"\xff\xc2")
        data[at + 5 : at + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif form == "BMP":
        data[18:26] = struct.pack("<II", width, height)
    elif form == "GIF":
        at = rng.choice([6, data.index(b",", 13) + 5])
        data[at : at + 4] = struct.pack("<HH", width & 0xFFFF, height & 0xFFFF)
    elif form == "PPM":
        data = bytearray(b"P6\n%d %d\n255\n" % (width, height) + bytes(data))
    elif form == "TIFF":
        body = bytes(rng.choice([784, 10]))
        data = bytearray(tiffs.tiff(tiffs.gray(width, height, body, rng.choice([tiffs.RAW, tiffs.LZW])), body))
    else:
        return posted_files("size-WEBP", rng, subject, _sized_webp(bytes(data), width, height))
    return posted_files(f"size-{form}", rng, subject, bytes(data))


def _sized_webp(data: bytes, width: int, height: int) -> bytes:
    """A WebP file whose canvas (VP8X), or whose picture where it has no canvas of its own, states that size."""
    extended = (
        struct.pack("<I", 0) + (width & 0xFFFFFF).to_bytes(3, "little") + (height & 0xFFFFFF).to_bytes(3, "little")
    )
    if data[12:16] == b"VP8L":
        bits = (width & 0x3FFF) | (height & 0x3FFF) << 14
        return data[:21] + struct.pack("<I", bits) + data[25:]
    chunk = b"VP8X" + struct.pack("<I", 10) + extended
    return data[:4] + struct.pack("<I", len(data) - 8 + len(chunk)) + data[8:12] + chunk + data[12:]


def webp_chunks(rng: Random, subject: Subject) -> Case:
    """Chunks of other lengths, many of them, twice, of animations, of EXIF data."""
    data = file(rng, subject, "WEBP")
    length = rng.choice([0, 1, 9, len(data), 2**31, 2**32 - 1, 2**32 - 12])
    name = rng.choice([b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"EXIF", b"XMP ", b"ICCP", b"zzzz"])
    extra = name + struct.pack("<I", rng.choice([0, 4, 10, length])) + rng.randbytes(rng.choice([0, 4, 10, 16]))
    act = rng.choice(["riff", "length", "before", "behind", "many"])
    if act == "riff":
        changed = data[:4] + struct.pack("<I", length) + data[8:]
    elif act == "length":
        changed = data[:16] + struct.pack("<I", length) + data[20:]
    else:
        extra *= STUFFED // len(extra) if act == "many" else 1
        whole = data[12:] + extra if act == "behind" else extra + data[12:]
        changed = data[:4] + struct.pack("<I", len(whole) + 4) + data[8:12] + whole
    return posted_files(f"webp-{act}", rng, subject, changed)


def bmp_header(rng: Random, subject: Subject) -> Case:
    """A field of the header of another value: the pixels' place, planes, depth, compression, colours, masks."""
    data = bytearray(file(rng, subject, "BMP"))
    at, size = rng.choice(
        [(2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (34, 4), (46, 4), (50, 4)]
    )
    value = rng.choice([0, 1, 2, 3, 4, 8, 12, 16, 24, 32, 40, 64, 124, 256, 65_537, 2**31, 2**32 - 1, 2**32 - 28])
    data[at : at + size] = (value % 256**size).to_bytes(size, "little")
    return posted_files(f"bmp-{at}", rng, subject, bytes(data))


def tiff_directory(rng: Random, subject: Subject) -> Case:
    """Entries of any tag, type and number; thousands of them; places beyond the file; a directory in a circle."""
    pixels = bytes(784)
    fields = tiffs.gray(28, 28, pixels, rng.choice([tiffs.RAW, tiffs.LZW, tiffs.DEFLATE, tiffs.PACKBITS, 7, 50_000]))
    tags = [
        *fields,
        tiffs.ROWS,
        tiffs.SAMPLES,
        tiffs.PREDICTOR,
        tiffs.ORIENTATION,
        284,
        320,
        338,
        339,
        330,
        34_665,
        65_000,
    ]
    numbers = [0, 1, 2, 3, 8, 16, 32, 28, 784, 65_535, 2**31, 2**32 - 1]
    entries = [
        (rng.choice(tags), rng.choice([*range(14), 99]), rng.choice([0, 1, 2, 3, 1_000, 2**32 - 1]), packed)
        for packed in (struct.pack("<I", rng.choice(numbers)) for _ in range(rng.choice([1, 1, 2, 5])))
    ]
    act = rng.choice(["replace", "add", "many", "loop", "order"])
    if act == "replace":
        fields = {tag: values for tag, values in fields.items() if tag not in {entry[0] for entry in entries}}
    elif act == "many":
        entries *= rng.choice([200, 13_000])
    data = tiffs.tiff(fields, pixels, entries, 8 if act == "loop" else 0)
    return posted_files(f"tiff-{act}", rng, subject, b"MM\0*" + data[4:] if act == "order" else data)


def tiff_parts(rng: Random, subject: Subject) -> Case:
    """Tiles and strips of any size and number: larger than the picture, by the ten thousand, of the same bytes."""
    width, height = rng.choice([(28, 28), (28, 28), (600, 600), (1, 60_000)])
    packed = zeros(rng.choice([784, 2**20, 2**24]))
    fields = tiffs.gray(width, height, packed, tiffs.DEFLATE)
    if rng.random() < 0.5:
        side = rng.choice([0, 1, 16, 32, 4096, 16_384, 2**24, 2**31])
        fields = tiffs.tiled(fields, side, rng.choice([16, side]))
    else:
        fields = {**fields, tiffs.ROWS: [rng.choice([0, 1, 2, 2**31, 2**32 - 1])]}
    count = rng.choice([1, 1, 28, 5_000, 65_536])
    for tag in {tiffs.STRIPS, tiffs.STRIP_BYTES, tiffs.TILES, tiffs.TILE_BYTES} & set(fields):
        fields[tag] = list(fields[tag]) * count
    return posted_files("tiff-parts", rng, subject, tiffs.tiff(fields, packed))


def gif_blocks(rng: Random, subject: Subject) -> Case:
    """Blocks without end or of a byte each, extensions by the thousand, code sizes, a picture beyond its screen."""
    data = bytearray(saved(gray(rng, subject), "GIF"))
    at = data.index(b",", 13 + 768)
    act = rng.choice(["code-size", "screen", "extensions", "tiny-blocks", "no-end", "loop", "table"])
    if act == "code-size":
        data[at + 10] = rng.choice([0, 1, 7, 9, 12, 13, 255])
    elif act == "screen":
        data[at + 1 : at + 9] = struct.pack("<HHHH", *(rng.choice([0, 1, 27, 28, 65_535]) for _ in range(4)))
    elif act == "extensions":
        extension = rng.choice([b"!\xf9\x04\1\0\0\0\0", b"!\xfe\1a\0", b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0", b"!\0\0"])
        data[at:at] = extension * rng.choice([1, 2, STUFFED // len(extension)])
    elif act == "tiny-blocks":
        blocks = bytes(data[at + 11 : -2])
        data[at + 11 : -2] = b"".join(b"\1" + bytes([byte]) for byte in blocks) + b"\1\0" * rng.choice(
            [0, STUFFED // 2]
        )
    elif act == "no-end":
        del data[-rng.randint(1, 3) :]
        data += b"\xff" + bytes(rng.choice([0, 255, STUFFED]))
    elif act == "loop":
        data[-1:] = bytes(data[at:-1]) * rng.choice([1, 50]) + b";"
    else:
        data[10] = rng.randrange(256)
    return posted_files(f"gif-{act}", rng, subject, bytes(data))


def ppm_header(rng: Random, subject: Subject) -> Case:
    """Numbers that are none, of a thousand digits, other levels, comments, other kinds, little or much data."""
    number = rng.choice([b"28", b"0", b"-28", b"+28", b"2_8", b"28.0", b"0x1c", b"9" * 1000, b"\xb2", b"", b"028"])
    header = rng.choice(
        [
            b"P%d\n28 28\n255\n" % rng.randrange(10),
            b"P6\n%s 28\n255\n" % number,
            b"P5\n28 %s\n255\n" % number,
            b"P5\n28 28\n%s\n" % rng.choice([b"0", b"1", b"254", b"256", b"65535", b"65536", number]),
            b"P5\n# " + b"a" * rng.choice([1, 500, 2_000]) + b"\n28 28\n255\n",
            b"P5 28 28 255 ",
            b"P5\r28\r28\r255\r",
            b"P5\n28 28 255",
            b"P7\nWIDTH 28\nHEIGHT 28\nDEPTH 1\nMAXVAL 255\nENDHDR\n",
            b"Pf\n28 28\n-1.0\n",
        ]
    )
    return posted_files("ppm", rng, subject, header + bytes(rng.choice([784, 784, 2352, 10, 0, STUFFED])))


@cache
def zeros(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


@cache
def _black(form: str, side: int) -> bytes:
    modes = {"PNG": "RGBA", "GIF": "P", "PPM": "L", "BMP": "1"}
    more: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True, "method": 0, "quality": 0},
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "JPEG": {"progressive": True},
    }
    return saved(Image.new(modes.get(form, "RGB"), (side, side)), form, **more.get(form, {}))


def bombs(rng: Random, subject: Subject) -> Case:
    """Few bytes of many megapixels in every format, alone or several in a request; 16 bits a sample; endless scans."""
    side = rng.choice([400, 1_500, 1_500, 4_000, 6_000])
    form = rng.choice(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
    data = _black(form, side)
    if form == "JPEG" and rng.random() < 0.5:
        last = data[data.rindex(b"\xff\xda") : -2]
        data = data[:-2] + last * rng.choice([10, 50, 500]) + data[-2:]
    copies = rng.choice([1, 1, 2, 5]) if len(data) < 300_000 else 1
    return posted_files(f"bomb-{form}", rng, subject, *[data] * min(copies, subject.accepts.max_rows))


def samples(rng: Random, subject: Subject) -> Case:
    """Floats, 16 and 32 bits, alpha, palettes with transparency, CMYK and LAB, in the formats that have them."""
    image = colours(rng, subject)
    first = np.asarray(image)[..., 0]
    half = Image.fromarray(np.where(first > 99, 255, 99).astype(np.uint8))
    kinds: dict[str, Callable[[], bytes]] = {
        "tiff-float": lambda: saved(Image.fromarray(first.astype(np.float32) / rng.choice([255, 1])), "TIFF"),
        "tiff-nan": lambda: saved(Image.fromarray(np.full(first.shape, np.nan, np.float32)), "TIFF"),
        "tiff-16": lambda: saved(Image.fromarray(first.astype(np.uint16) * 257), "TIFF"),
        "tiff-32": lambda: saved(Image.fromarray(first.astype(np.int32)), "TIFF"),
        "tiff-cmyk": lambda: saved(image.convert("CMYK"), "TIFF"),
        "tiff-lab": lambda: saved(Image.merge("LAB", image.split()), "TIFF"),
        "tiff-alpha": lambda: saved(Image.merge("RGBA", [*image.split(), half]), "TIFF"),
        "webp-alpha": lambda: saved(Image.merge("RGBA", [*image.split(), half]), "WEBP", lossless=True),
        "gif-transparent": lambda: saved(image.convert("P"), "GIF", transparency=rng.randrange(256)),
        "bmp-alpha": lambda: saved(Image.merge("RGBA", [*image.split(), half]), "BMP"),
        "webp-animated": lambda: saved(image, "WEBP", save_all=True, append_images=[half.convert("RGB")]),
        "tiff-frames": lambda: saved(image, "TIFF", save_all=True, append_images=[image]),
        "gif-frames": lambda: saved(image, "GIF", save_all=True, append_images=[half.convert("RGB")]),
    }
    name = rng.choice(list(kinds))
    return posted_files(f"samples-{name}", rng, subject, kinds[name]())


IDEAS: tuple[Make, ...] = (
    intact,
    any_size,
    damaged,
    damaged,
    sizes,
    webp_chunks,
    bmp_header,
    tiff_directory,
    tiff_directory,
    tiff_parts,
    gif_blocks,
    ppm_header,
    bombs,
    samples,
)
