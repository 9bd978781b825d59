"""Pictures: good files of every make, damaged, bent, blown up, animated, mislabelled."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
import orjson
from numpy.typing import NDArray
from PIL import Image

from assurance.fuzz import pngs
from assurance.fuzz.case import Case, Make, Subject, posted
from assurance.fuzz.pngs import END, Chunk, chunks, joined, saved
from handlers import wire

KIND = "pictures"
STUFFED = 200_000  # bytes of what is put in by the thousand


def levels(rng: Random, subject: Subject) -> NDArray[np.uint8]:
    """An honest row's first channel (H,W) as bytes."""
    image: NDArray[np.float32] = rng.choice(subject.images)
    return np.asarray(np.rint(image[0] * 255), np.uint8)


def gray(rng: Random, subject: Subject) -> Image.Image:
    return Image.fromarray(levels(rng, subject))


def colours(rng: Random, subject: Subject) -> Image.Image:
    first = levels(rng, subject)
    return Image.fromarray(np.stack([first, first[::-1], 255 - first], axis=2))


def picture(rng: Random, subject: Subject) -> Image.Image:
    """A gray, bilevel, palette or RGB picture."""
    image = rng.choice([gray, colours])(rng, subject)
    return image.convert(rng.choice([image.mode, "L", "RGB", "P", "1"]))


def png(rng: Random, subject: Subject) -> bytes:
    return saved(picture(rng, subject), "PNG", compress_level=rng.choice([0, 1, 6, 9]))


def jpeg(rng: Random, subject: Subject) -> bytes:
    image = rng.choice([gray, colours])(rng, subject)
    return saved(
        image, "JPEG", quality=rng.randint(5, 100), progressive=rng.random() < 0.4, subsampling=rng.choice([0, 1, 2])
    )


def either(rng: Random, subject: Subject) -> bytes:
    return rng.choice([png, jpeg])(rng, subject)


def posted_files(idea: str, rng: Random, subject: Subject, *files: bytes) -> Case:
    """Files under the content type of the first, or of the other format; or as rows of a JSON text."""
    draw = rng.random()
    if len(files) > 1 or draw < 0.15:
        rows = [{"b64": base64.b64encode(file).decode()} for file in files]
        return posted(KIND, idea, subject, wire.JSON, orjson.dumps({"instances": rows}))
    content_type = wire.JPEG if files[0][:2] == b"\xff\xd8" else wire.PNG  # the first bytes decide
    if draw > 0.95:
        content_type = wire.PNG if content_type == wire.JPEG else wire.JPEG
    return posted(KIND, idea, subject, content_type, files[0])


def intact(rng: Random, subject: Subject) -> Case:
    """Good files, one or several: what bad ones must not be mistaken for."""
    return posted_files("intact", rng, subject, *(either(rng, subject) for _ in range(rng.choice([1, 1, 3]))))


def cut(rng: Random, subject: Subject) -> Case:
    """The beginning of a file, to any place or to the end of a chunk."""
    file = either(rng, subject)
    ends = [rng.randrange(len(file))]
    if file.startswith(pngs.SIGNATURE):
        parts = chunks(file)
        ends += [len(joined(parts[:count])) + rng.choice([0, 4, 8]) for count in range(len(parts))]
    return posted_files("cut", rng, subject, file[: rng.choice(ends)])


def cut_the_front(rng: Random, subject: Subject) -> Case:
    """The end of a file."""
    file = either(rng, subject)
    return posted_files("cut-front", rng, subject, file[rng.randrange(1, len(file)) :])


def flip(rng: Random, subject: Subject) -> Case:
    """Some bits turned over."""
    file = bytearray(either(rng, subject))
    for _ in range(rng.choice([1, 2, 8, 64])):
        file[rng.randrange(len(file))] ^= 1 << rng.randrange(8)
    return posted_files("flip", rng, subject, bytes(file))


def overwrite(rng: Random, subject: Subject) -> Case:
    """A stretch replaced by noise, zeros, ones or another stretch; or taken out; or doubled."""
    file = either(rng, subject)
    place, length = rng.randrange(len(file)), rng.randint(1, 40)
    other = rng.randrange(len(file))
    stretch = rng.choice(
        [
            rng.randbytes(length),
            bytes(length),
            b"\xff" * length,
            file[other : other + length],
            b"",
            file[place : place + length] * 2,
        ]
    )
    return posted_files("overwrite", rng, subject, file[:place] + stretch + file[place + length :])


def shuffle_chunks(rng: Random, subject: Subject) -> Case:
    """Chunks left out, doubled, in another order, or with another name."""
    parts = chunks(png(rng, subject))
    first, second = rng.randrange(len(parts)), rng.randrange(len(parts))
    act = rng.choice(["swap", "drop", "double", "rename", "end-early"])
    if act == "swap":
        parts[first], parts[second] = parts[second], parts[first]
    elif act == "drop":
        del parts[first]
    elif act == "double":
        parts.insert(second, parts[first])
    elif act == "rename":
        parts[first] = Chunk(rng.choice([b"IDAT", b"PLTE", b"tRNS", b"\0\0\0\0", b"zzzz", b"IHDR"]), parts[first].data)
    else:
        parts.insert(1, END)
    return posted_files(f"chunks-{act}", rng, subject, joined(parts))


def wrong_checksum(rng: Random, subject: Subject) -> Case:
    """A chunk whose checksum, or whose length, is not its own."""
    parts = chunks(png(rng, subject))
    at = rng.randrange(len(parts))
    whole = [part.bytes for part in parts]
    if rng.random() < 0.5:
        whole[at] = whole[at][:-4] + rng.randbytes(4)
    else:
        length = rng.choice([0, 1, len(parts[at].data) + 1, 2**31 - 1, 2**31, 2**32 - 1])
        whole[at] = struct.pack(">I", length) + whole[at][4:]
    return posted_files("checksum-or-length", rng, subject, pngs.SIGNATURE + b"".join(whole))


def strange_header(rng: Random, subject: Subject) -> Case:
    """An IHDR with other fields: sizes of 0 and 2^31, depths and colours that do not go together."""
    parts = chunks(png(rng, subject))
    sizes = [0, 1, 2, subject.accepts.input.width, 9_000, 20_000, 65_535, 2**31 - 1, 2**31, 2**32 - 1]
    width = rng.choice([subject.accepts.input.width, rng.choice(sizes)])
    height = rng.choice([subject.accepts.input.height, rng.choice(sizes)])
    rest = (rng.choice([0, 0, 0, 1, 255]), rng.choice([0, 0, 0, 1, 64]), rng.choice([0, 0, 1, 2]))
    parts[0] = pngs.header(
        width, height, rng.choice([0, 1, 2, 4, 8, 8, 16, 32]), rng.choice([0, 1, 2, 3, 4, 6, 7]), rest=rest
    )
    return posted_files("header", rng, subject, joined(parts))


@cache
def zeros(size: int) -> bytes:
    """So many zero bytes, packed."""
    return zlib.compress(bytes(size))


def bomb(rng: Random, subject: Subject) -> Case:
    """Little data that unfolds to tens of megabytes: pixels, texts, a profile."""
    packed = zeros(rng.choice([2**20, 2**24, 3 * 10**7]))
    parts = chunks(png(rng, subject))
    name = rng.choice([b"IDAT", b"zTXt", b"iTXt", b"iCCP"])
    data = {
        b"IDAT": packed,
        b"zTXt": b"a\0\0" + packed,
        b"iTXt": b"a\0\1\0\0\0" + packed,
        b"iCCP": b"a\0\0" + packed,
    }[name]
    copies = rng.choice([1, 1, 20])
    at = rng.choice([1, len(parts) - 1])
    parts[at:at] = [Chunk(name, data)] * copies
    return posted_files(f"bomb-{name.decode()}", rng, subject, joined(parts))


def many_chunks(rng: Random, subject: Subject) -> Case:
    """Thousands of chunks of a few bytes."""
    parts = chunks(png(rng, subject))
    name = rng.choice([b"tEXt", b"IDAT", b"zzZz", b"eXIf", b"tIME", b"acTL", b"fdAT", b"PLTE", b"sBIT"])
    part = Chunk(name, rng.randbytes(rng.choice([0, 0, 1, 7])))
    at = rng.choice([1, len(parts) - 1])
    parts[at:at] = [part] * (STUFFED // len(part.bytes))
    return posted_files(f"many-{name.decode()}", rng, subject, joined(parts))


def many_segments(rng: Random, subject: Subject) -> Case:
    """Thousands of JPEG segments, padding bytes, restarts or scans."""
    file = jpeg(rng, subject)
    scan = file[file.rindex(b"\xff\xda") : -2]
    stuffing = {
        **{
            f"{marker:x}": bytes([0xFF, marker, 0, 2])
            for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDB, 0xC4, 0xDD)
        },
        "padding": b"\xff",
        "junk": b"\0",
        "exif": b"\xff\xe1\0\x08Exif\0\0",
        "restarts": b"\xff\xd0",
    }
    name = rng.choice([*stuffing, "scans", "entropy"])
    if name in ("scans", "entropy"):
        piece = scan if name == "scans" else b"\0\x55"
        return posted_files(f"many-{name}", rng, subject, file[:-2] + piece * (STUFFED // len(piece)) + file[-2:])
    piece = stuffing[name]
    return posted_files(f"many-{name}", rng, subject, file[:2] + piece * (STUFFED // len(piece)) + file[2:])


def strange_frame(rng: Random, subject: Subject) -> Case:
    """A JPEG whose frame states another size, precision, process or number of components."""
    file = bytearray(jpeg(rng, subject))
    at = max(file.find(b"\xff\xc0"), file.find(b"\xff\xc2"))
    what = rng.choice(["size", "precision", "process", "components", "sampling"])
    if what == "size":
        file[at + 5 : at + 9] = struct.pack(">HH", rng.choice([0, 1, 65_535]), rng.choice([0, 1, 28, 65_535]))
    elif what == "precision":
        file[at + 4] = rng.choice([0, 1, 12, 16, 255])
    elif what == "process":
        file[at + 1] = rng.choice([0xC1, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB])
    elif what == "components":
        file[at + 9] = rng.choice([0, 2, 4, 255])
    else:
        file[at + 11] = rng.choice([0, 0x14, 0x41, 0xFF])
    return posted_files(f"frame-{what}", rng, subject, bytes(file))


def animated(rng: Random, subject: Subject) -> Case:
    """Several frames, or the claim of them."""
    image, other = colours(rng, subject), colours(rng, subject)
    form = rng.choice(["PNG", "GIF", "WEBP", "TIFF", "MPO", "claim", "late-claim"])
    if form.endswith("claim"):
        parts = chunks(png(rng, subject))
        count = rng.choice([0, 1, 2, 2**31 - 1, 2**32 - 1])
        parts.insert(1 if form == "claim" else len(parts) - 1, Chunk(b"acTL", struct.pack(">II", count, 0)))
        return posted_files(f"animated-{form}", rng, subject, joined(parts))
    return posted_files(f"animated-{form}", rng, subject, saved(image, form, save_all=True, append_images=[other]))


def other_samples(rng: Random, subject: Subject) -> Case:
    """16 bits, alpha, transparent colours, other colour spaces."""
    image = colours(rng, subject)
    keyed = image.convert("P", palette=Image.Palette.ADAPTIVE)
    opaque = Image.new("L", image.size, 255)
    kinds: dict[str, Callable[[], bytes]] = {
        "gray-16": lambda: pngs.sixteen_bits(levels(rng, subject), 0),
        "rgb-16": lambda: pngs.sixteen_bits(levels(rng, subject), 2),
        "alpha": lambda: saved(Image.merge("RGBA", [*image.split(), opaque]), "PNG"),
        "gray-alpha": lambda: saved(Image.merge("LA", [opaque, opaque]), "PNG"),
        "palette": lambda: saved(keyed, "PNG"),
        "palette-transparent": lambda: saved(keyed, "PNG", transparency=rng.randrange(256)),
        "rgb-transparent": lambda: saved(image, "PNG", transparency=(0, 0, 255)),
        "interlaced": lambda: pngs.interlaced(levels(rng, subject)),
        "cmyk": lambda: saved(image.convert("CMYK"), "JPEG"),
        "progressive": lambda: saved(image, "JPEG", progressive=True),
    }
    name = rng.choice(list(kinds))
    return posted_files(f"samples-{name}", rng, subject, kinds[name]())


def turned(rng: Random, subject: Subject) -> Case:
    """An EXIF orientation: the eight, others, and EXIF data that is none."""
    image = picture(rng, subject).convert("RGB")
    exif = Image.Exif()
    orientation = rng.choice([*range(10), 255, 65_535])
    exif[0x0112] = orientation
    data = exif.tobytes()
    if rng.random() < 0.3:
        orientation = -1
        broken = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        data = bytes(broken[: rng.choice([len(broken), len(broken), rng.randrange(len(broken))])])
    form = rng.choice(["PNG", "JPEG"])
    return posted_files(f"orientation-{form}-{orientation}", rng, subject, saved(image, form, exif=data))


def sizes(rng: Random, subject: Subject) -> Case:
    """Another size: a line more or less, sides exchanged, a single pixel, a large picture."""
    width, height = subject.accepts.input.width, subject.accepts.input.height
    size = rng.choice(
        [(width + 1, height), (width, height - 1), (height, width), (1, 1), (2 * width, 2 * height), (1500, 1500)]
    )
    form = rng.choice(["PNG", "JPEG"])
    return posted_files("size", rng, subject, saved(picture(rng, subject).convert("L").resize(size), form))


def trailing(rng: Random, subject: Subject) -> Case:
    """Something behind the file, or before it: another file, HTML, an archive."""
    more = [
        rng.randbytes(rng.choice([1, 100, 10_000])),
        bytes(100_000),
        b"<html><script>alert(1)</script></html>",
        b"PK\x03\x04" + bytes(26),
        b"%PDF-1.4\n",
        b"GIF89a/*",
        either(rng, subject),
    ]
    file, added = either(rng, subject), rng.choice(more)
    return posted_files("polyglot", rng, subject, file + added if rng.random() < 0.8 else added + file)


def other_formats(rng: Random, subject: Subject) -> Case:
    """Files of other formats, or none."""
    image = colours(rng, subject)
    form = rng.choice(
        ["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX", "PDF", "EPS", "SVG", "text", "empty", "noise"]
    )
    plain = {
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"/>',
        "text": b"not a picture",
        "empty": b"",
        "noise": rng.randbytes(rng.randint(1, 3000)),
    }
    return posted_files(f"format-{form}", rng, subject, plain[form] if form in plain else saved(image, form))


IDEAS: tuple[Make, ...] = (
    intact,
    cut,
    cut,
    cut_the_front,
    flip,
    flip,
    flip,
    overwrite,
    overwrite,
    shuffle_chunks,
    wrong_checksum,
    strange_header,
    bomb,
    many_chunks,
    many_segments,
    strange_frame,
    animated,
    other_samples,
    turned,
    turned,
    sizes,
    trailing,
    other_formats,
)
