"""Good pictures with metadata of every kind and of several sizes, as Pillow writes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from assurance.fuzz.case import Case, Make, Subject
from assurance.fuzz.pictures import picture, posted_files
from assurance.fuzz.pngs import saved

SIZES = (0, 1, 100, 3_000, 30_000)
Options = dict[str, Any]


def words(rng: Random) -> str:
    return " ".join(rng.choice(["a", "picture", "of", "some", "place"]) for _ in range(rng.choice(SIZES) // 5))


@cache
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(rng: Random) -> bytes:
    """EXIF data of a camera, in either byte order, with an orientation or without."""
    data = Image.Exif()
    data.endian = rng.choice("<>")
    data[0x010F], data[0x0110], data[0x0132] = "Maker", "Model", "2024:01:01 00:00:00"
    data[0x011A], data[0x011B], data[0x0128] = 72.0, 72.0, 2
    if rng.random() < 0.5:
        data[0x0112] = rng.randint(1, 8)
    if rng.random() < 0.5:
        data.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + words(rng).encode()
        data.get_ifd(0x8825)[1] = "N"
    return data.tobytes()


def xmp(rng: Random) -> bytes:
    about = f'<rdf:Description tiff:Orientation="{rng.randint(1, 8)}">{words(rng)}</rdf:Description>'
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{about}</x:xmpmeta>'.encode()


def png_texts(rng: Random) -> PngInfo:
    info = PngInfo()
    for name in rng.sample(["Title", "Author", "Description", "Copyright", "Comment"], rng.randint(1, 5)):
        if rng.random() < 0.5:
            info.add_text(name, words(rng), zip=rng.random() < 0.5)
        else:
            info.add_itxt(name, words(rng), "en", name, zip=rng.random() < 0.5)
    if rng.random() < 0.3:
        info.add_itxt("XML:com.adobe.xmp", xmp(rng).decode(), zip=rng.random() < 0.5)
    return info


def png_colours(rng: Random) -> PngInfo:
    """What says how the numbers are to be shown."""
    info = PngInfo()
    info.add(b"gAMA", rng.choice([45_455, 100_000]).to_bytes(4, "big"))
    white_and_primaries = (31_270, 32_900, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000)
    info.add(b"cHRM", b"".join(value.to_bytes(4, "big") for value in white_and_primaries))
    info.add(b"sRGB", bytes([rng.randrange(4)]))
    info.add(b"tIME", b"\x07\xe8\1\1\0\0\0", after_idat=rng.random() < 0.5)
    return info


KINDS: dict[str, dict[str, Callable[[Random], Options]]] = {
    "PNG": {
        "exif": lambda rng: {"exif": exif(rng)},
        "profile": lambda rng: {"icc_profile": profile() + rng.randbytes(rng.choice(SIZES))},
        "texts": lambda rng: {"pnginfo": png_texts(rng)},
        "colours": lambda rng: {"pnginfo": png_colours(rng)},
        "resolution": lambda rng: {"dpi": (rng.choice([72, 300]), 300)},
    },
    "JPEG": {
        "exif": lambda rng: {"exif": exif(rng)},
        "profile": lambda rng: {"icc_profile": profile() * rng.choice([1, 1, 150])},
        "comment": lambda rng: {"comment": words(rng)},
        "xmp": lambda rng: {"xmp": xmp(rng)},
        "resolution": lambda rng: {"dpi": (rng.choice([72, 300]), 300)},
    },
}


def _saved(rng: Random, subject: Subject, form: str, names: list[str]) -> bytes:
    options: Options = {}
    for name in names:
        options |= KINDS[form][name](rng)
    return saved(picture(rng, subject).convert(rng.choice(["L", "RGB"])), form, **options)


def one(rng: Random, subject: Subject) -> Case:
    """One kind of metadata."""
    form = rng.choice(list(KINDS))
    name = rng.choice(list(KINDS[form]))
    return posted_files(f"metadata-{form}-{name}", rng, subject, _saved(rng, subject, form, [name]))


def several(rng: Random, subject: Subject) -> Case:
    """Some kinds, or all."""
    form = rng.choice(list(KINDS))
    names = rng.sample(list(KINDS[form]), rng.randint(2, len(KINDS[form])))
    return posted_files(f"metadata-{form}", rng, subject, _saved(rng, subject, form, names))


def damaged(rng: Random, subject: Subject) -> Case:
    """Some bytes changed, or the end cut off."""
    form = rng.choice(list(KINDS))
    file = bytearray(_saved(rng, subject, form, list(KINDS[form])))
    for _ in range(rng.choice([1, 8, 64])):
        file[rng.randrange(len(file))] = rng.randrange(256)
    end = rng.choice([len(file), rng.randrange(len(file))])
    return posted_files(f"metadata-{form}-damaged", rng, subject, bytes(file[:end]))


IDEAS: tuple[Make, ...] = (one, one, several, damaged)
