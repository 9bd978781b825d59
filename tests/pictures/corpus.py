"""Some ninety odd pictures, all drawn here from one, in every format, mode, depth and orientation that clients send."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

HEIGHT, WIDTH = 24, 36
# pixels of the plain picture; lossy formats are within LOSS of them
LOSS = 40


class Odd(NamedTuple):
    """A picture's file, and what it must become: "same" pixels as the plain one, "gray" ones, "near" either, "other"
    pixels; or the words that it is refused with."""

    data: bytes
    becomes: str = "same"
    refused: str = ""


@cache
def plain() -> NDArray[np.uint8]:
    """(H,W,3), smooth, so that JPEG keeps it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    channels = [100 + 3 * y + x, 200 - 2 * y - 2 * x, 60 + 2 * y + 3 * x]
    return np.stack(channels, axis=2).clip(0, 255).astype(np.uint8)


def gray() -> NDArray[np.uint8]:
    """Pillow's luma of the plain one."""
    return np.asarray(Image.fromarray(plain()).convert("L"))


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    """A file, as Pillow writes it."""
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def picture() -> Image.Image:
    return Image.fromarray(plain())


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(channels: NDArray[np.uint16], colour: int, *others: bytes) -> bytes:
    """A PNG file of 16 bits a channel, (H,W,C), which Pillow does not write in colour."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    pieces = chunk(b"IHDR", header) + b"".join(others) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


def turned(orientation: int, format_: str) -> bytes:
    """The picture lying as an orientation says, so that it is the plain one once it is upright."""
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    image = picture() if back is None else picture().transpose(back)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(format_, {})
    return saved(image, format_, exif=exif, **lossless)


def with_alpha(level: int | NDArray[np.uint8], mode: str = "RGBA") -> Image.Image:
    alpha = np.broadcast_to(np.asarray(level, np.uint8), (HEIGHT, WIDTH))
    base = np.dstack([plain(), alpha]) if mode == "RGBA" else np.dstack([gray(), alpha])
    return Image.fromarray(np.ascontiguousarray(base))


def palette() -> Image.Image:
    return picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=255)


SIXTEEN = plain().astype(np.uint16) * 256 + 77
HALF = np.where(np.arange(WIDTH) < WIDTH // 2, 255, 0).astype(np.uint8)
TRANSPARENT = "expected a picture without transparent parts; put it on a background first"
BROKEN = "expected an intact picture; this one cannot be decoded"
FRAMES = "expected a single picture, got several frames"
_frames = {"save_all": True, "append_images": [Image.new("RGB", (WIDTH, HEIGHT))]}

MAKE: Mapping[str, Callable[[], Odd]] = {
    "png": lambda: Odd(saved(picture(), "PNG")),
    "png, interlaced by nobody, compressed not at all": lambda: Odd(saved(picture(), "PNG", compress_level=0)),
    "png, gray": lambda: Odd(saved(Image.fromarray(gray()), "PNG"), "gray"),
    "png, bilevel": lambda: Odd(saved(picture().convert("1"), "PNG"), "other"),
    "png, palette": lambda: Odd(saved(palette(), "PNG"), "near"),
    "png, palette of 16": lambda: Odd(saved(picture().quantize(16), "PNG", bits=4), "other"),
    "png, opaque alpha": lambda: Odd(saved(with_alpha(255), "PNG")),
    "png, gray, opaque alpha": lambda: Odd(saved(with_alpha(255, "LA"), "PNG"), "gray"),
    "png, palette, opaque tRNS": lambda: Odd(saved(palette(), "PNG", transparency=b"\xff" * 255), "near"),
    "png, colour key of no pixel": lambda: Odd(saved(picture(), "PNG", transparency=(255, 0, 255))),
    "png, half transparent": lambda: Odd(saved(with_alpha(HALF), "PNG"), refused=TRANSPARENT),
    "png, faint everywhere": lambda: Odd(saved(with_alpha(254), "PNG"), refused=TRANSPARENT),
    "png, gray, half transparent": lambda: Odd(saved(with_alpha(HALF, "LA"), "PNG"), refused=TRANSPARENT),
    "png, palette with a hole": lambda: Odd(saved(palette(), "PNG", transparency=3), refused=TRANSPARENT),
    "png, colour key of pixels": lambda: Odd(
        saved(picture(), "PNG", transparency=tuple(plain()[0, 0].tolist())), refused=TRANSPARENT
    ),
    "png, 16 bits gray": lambda: Odd(saved(Image.fromarray(gray().astype(np.uint16) * 256 + 200), "PNG"), "gray"),
    "png, 16 bits": lambda: Odd(png16(SIXTEEN, 2)),
    "png, 16 bits, opaque": lambda: Odd(png16(np.dstack([SIXTEEN, np.full((HEIGHT, WIDTH), 65_535)]), 6)),
    "png, 16 bits, transparent": lambda: Odd(
        png16(np.dstack([SIXTEEN, np.full((HEIGHT, WIDTH), 1_000)]), 6), refused=TRANSPARENT
    ),
    "png, 16 bits gray, key of pixels": lambda: Odd(
        png16(SIXTEEN[:, :, :1], 0, chunk(b"tRNS", struct.pack(">H", int(SIXTEEN[0, 0, 0])))), refused=TRANSPARENT
    ),
    "png, two frames": lambda: Odd(saved(picture(), "PNG", **_frames), refused=FRAMES),
    "png, cut off": lambda: Odd(saved(picture(), "PNG")[:-60], refused=BROKEN),
    "png, profile": lambda: Odd(saved(picture(), "PNG", icc_profile=b"x" * 200)),
    "jpeg": lambda: Odd(saved(picture(), "JPEG", quality=95), "near"),
    "jpeg, progressive": lambda: Odd(saved(picture(), "JPEG", quality=95, progressive=True), "near"),
    "jpeg, gray": lambda: Odd(saved(Image.fromarray(gray()), "JPEG", quality=95), "near"),
    "jpeg, full colour": lambda: Odd(saved(picture(), "JPEG", quality=98, subsampling=0), "near"),
    "jpeg, rgb inside": lambda: Odd(saved(picture(), "JPEG", quality=98, keep_rgb=True), "near"),
    "jpeg, cmyk": lambda: Odd(saved(picture().convert("CMYK"), "JPEG", quality=95), "near"),
    "jpeg, restarts": lambda: Odd(saved(picture(), "JPEG", quality=95, restart_marker_rows=1), "near"),
    "jpeg, cut off": lambda: Odd(saved(picture(), "JPEG")[:-100], refused=BROKEN),
    "jpeg, without its last marker": lambda: Odd(saved(picture(), "JPEG")[:-2], refused=BROKEN),
    "jpeg, two pictures": lambda: Odd(
        saved(picture(), "MPO", save_all=True, append_images=[picture()]), refused=FRAMES
    ),
    "webp, lossless": lambda: Odd(saved(picture(), "WEBP", lossless=True)),
    "webp": lambda: Odd(saved(picture(), "WEBP", quality=95), "near"),
    "webp, opaque alpha": lambda: Odd(saved(with_alpha(255), "WEBP", lossless=True)),
    "webp, half transparent": lambda: Odd(saved(with_alpha(HALF), "WEBP", lossless=True), refused=TRANSPARENT),
    "webp, two frames": lambda: Odd(saved(picture(), "WEBP", lossless=True, **_frames), refused=FRAMES),
    "webp, cut off": lambda: Odd(saved(picture(), "WEBP")[:-30], refused=BROKEN),
    "gif": lambda: Odd(saved(palette(), "GIF"), "near"),
    "gif, gray": lambda: Odd(saved(Image.fromarray(gray()), "GIF"), "gray"),
    "gif, commented": lambda: Odd(saved(palette(), "GIF", comment=b"made by hand " * 50), "near"),
    "gif, with a hole": lambda: Odd(saved(palette(), "GIF", transparency=3), refused=TRANSPARENT),
    "gif, two frames": lambda: Odd(saved(picture(), "GIF", **_frames), refused=FRAMES),
    "gif, cut off": lambda: Odd(saved(palette(), "GIF")[:-200], refused=BROKEN),
    "bmp": lambda: Odd(saved(picture(), "BMP")),
    "bmp, gray": lambda: Odd(saved(Image.fromarray(gray()), "BMP"), "gray"),
    "bmp, bilevel": lambda: Odd(saved(picture().convert("1"), "BMP"), "other"),
    "bmp, palette": lambda: Odd(saved(palette(), "BMP"), "near"),
    "bmp, opaque alpha": lambda: Odd(saved(with_alpha(255), "BMP")),
    "bmp, cut off": lambda: Odd(saved(picture(), "BMP")[:-200], refused=BROKEN),
    "tiff": lambda: Odd(saved(picture(), "TIFF")),
    "tiff, lzw": lambda: Odd(saved(picture(), "TIFF", compression="tiff_lzw")),
    "tiff, deflate": lambda: Odd(saved(picture(), "TIFF", compression="tiff_adobe_deflate")),
    "tiff, packbits": lambda: Odd(saved(picture(), "TIFF", compression="packbits")),
    "tiff, jpeg inside": lambda: Odd(
        saved(picture(), "TIFF", compression="jpeg"), refused="expected a TIFF file without compression, or with LZW"
    ),
    "tiff, gray": lambda: Odd(saved(Image.fromarray(gray()), "TIFF"), "gray"),
    "tiff, bilevel": lambda: Odd(saved(picture().convert("1"), "TIFF"), "other"),
    "tiff, palette": lambda: Odd(saved(palette(), "TIFF"), "near"),
    "tiff, cmyk": lambda: Odd(saved(picture().convert("CMYK"), "TIFF"), "near"),
    "tiff, 16 bits gray": lambda: Odd(saved(Image.fromarray(gray().astype(np.uint16) * 256 + 9), "TIFF"), "gray"),
    "tiff, floats": lambda: Odd(saved(Image.fromarray(gray().astype(np.float32) / 255), "TIFF"), "gray"),
    "tiff, floats beyond": lambda: Odd(
        saved(Image.fromarray(gray().astype(np.float32)), "TIFF"), refused="expected floating-point pixels from 0 to 1"
    ),
    "tiff, not a number": lambda: Odd(
        saved(Image.fromarray(np.full((HEIGHT, WIDTH), np.nan, np.float32)), "TIFF"),
        refused="expected floating-point pixels from 0 to 1",
    ),
    "tiff, 32 bits": lambda: Odd(
        saved(Image.fromarray(gray().astype(np.int32) * 70_000), "TIFF"),
        refused="expected a gray, palette, RGB or CMYK picture, got another colour space",
    ),
    "tiff, lab": lambda: Odd(
        saved(Image.merge("LAB", [Image.fromarray(gray())] * 3), "TIFF"),
        refused="expected a gray, palette, RGB or CMYK picture, got another colour space",
    ),
    "tiff, half transparent": lambda: Odd(saved(with_alpha(HALF), "TIFF"), refused=TRANSPARENT),
    "tiff, opaque alpha": lambda: Odd(saved(with_alpha(255), "TIFF")),
    "tiff, two frames": lambda: Odd(saved(picture(), "TIFF", **_frames), refused=FRAMES),
    "tiff, cut off": lambda: Odd(saved(picture(), "TIFF", compression="tiff_lzw")[:200], refused=BROKEN),
    "ppm": lambda: Odd(saved(picture(), "PPM")),
    "pgm": lambda: Odd(saved(Image.fromarray(gray()), "PPM"), "gray"),
    "ppm, cut off": lambda: Odd(saved(picture(), "PPM")[:-200], refused=BROKEN),
    "no picture": lambda: Odd(b"not a picture at all", refused="expected a picture (PNG, JPEG, WEBP"),
    "nothing": lambda: Odd(b"", refused="expected a picture (PNG, JPEG, WEBP"),
    **{
        f"{format_.lower()}, orientation {orientation}": lambda orientation=orientation, format_=format_: Odd(  # type: ignore[misc]
            turned(orientation, format_), "near" if format_ == "JPEG" else "same"
        )
        for format_ in ("JPEG", "PNG", "WEBP", "TIFF")
        for orientation in (1, 3, 6, 7)
    },
}
ENDINGS = {"jpeg": "jfif", "tiff": "tif", "no picture": "png", "nothing": "png"}


def file_name(name: str) -> str:
    """A file's name, with the ending of its format."""
    first = name.split(",")[0]
    return f"{name.replace(', ', '-').replace(' ', '-')}.{ENDINGS.get(first, first)}"
