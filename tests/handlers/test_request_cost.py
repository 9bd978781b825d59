"""What one request may cost at most: files of few bytes, as many and as large as are decoded, by what is dear in each
format."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image

from assurance.fuzz import pngs, tiffs
from assurance.fuzz.pngs import saved
from deploy import settings
from handlers import bodies
from handlers.bodies import LARGEST, Message
from handlers.rows import Accepts, Rows
from pictures.geometry import Geometry
from tests.e2e.conftest import CHECKOUT

SIDE = 5000  # 25 megapixels
# 224 from 256, as most classifiers take photographs; by nearest neighbours no JPEG is decoded at less than its size
ANY = Geometry(3, 224, 224, fit="crop", resize=256, background=0)
NEAREST = Geometry(3, 224, 224, fit="crop", resize=256, background=0, interpolation="nearest")
CUBIC = Geometry(3, 224, 224, fit="crop", resize=256, background=0, library="opencv", interpolation="cubic")
ROWS = 256
# of one core; 1.0 to 3.4 when it was written, and 60 before the bounds were
SECONDS = 6.0
PAETH = 4


def png() -> list[bytes]:
    """Four channels of 16 bits, transparent, in the dearest filter: 1.4 s each."""
    packer = zlib.compressobj(9)
    line = bytes([PAETH]) + bytes(8 * SIDE)
    data = b"".join(packer.compress(line) for _ in range(SIDE)) + packer.flush()
    return [pngs.joined([pngs.header(SIDE, SIDE, 16, 6), pngs.Chunk(b"IDAT", data), pngs.END])] * LARGEST


def jpeg() -> list[bytes]:
    """Twelve scans, no colour subsampled."""
    data = saved(Image.new("RGB", (SIDE, SIDE)), "JPEG", progressive=True, subsampling=0)
    last = data[data.rindex(b"\xff\xda") : -2]
    return [data[:-2] + last * (12 - data.count(b"\xff\xda")) + data[-2:]] * LARGEST


def scans() -> list[bytes]:
    """Sixty-three scans, of as many pixels as may have these, and as many of them as there may be pixels."""
    data = saved(Image.new("RGB", (2160, 2160)), "JPEG", progressive=True, subsampling=0)
    last = data[data.rindex(b"\xff\xda") : -2]
    return [data[:-2] + last * (63 - data.count(b"\xff\xda")) + data[-2:]] * 21


def tiff(**options: object) -> list[bytes]:
    return [saved(Image.new("RGBA", (SIDE, SIDE)), "TIFF", **options)] * LARGEST


def floats() -> list[bytes]:
    return [saved(Image.new("F", (SIDE, SIDE)), "TIFF", compression="tiff_adobe_deflate")] * LARGEST


def tiles() -> list[bytes]:
    """A tile of 4 megapixels over a picture of 1, two hundred times."""
    packed = zlib.compress(bytes(2048 * 2048), 9)
    fields = tiffs.tiled(tiffs.gray(1025, 1025, packed, tiffs.DEFLATE), 2048, 2048)
    return [tiffs.tiff(fields, packed)] * 200


def strips() -> list[bytes]:
    """As many strips as a small picture may have, two hundred times."""
    row = bytes(16)
    fields = {**tiffs.gray(16, 4300, row, rows=1), tiffs.STRIPS: [tiffs.START] * 4300, tiffs.STRIP_BYTES: [16] * 4300}
    return [tiffs.tiff(fields, row)] * 200


def gif() -> list[bytes]:
    return [saved(Image.new("P", (SIDE, SIDE)), "GIF", transparency=0)] * LARGEST


def webp() -> list[bytes]:
    return [saved(Image.new("RGBA", (SIDE, SIDE)), "WEBP", lossless=True, quality=0, method=0)] * LARGEST


def long() -> list[bytes]:
    """A line of pixels that becomes 25 megapixels, two hundred times."""
    return [saved(Image.new("RGB", (380, 1)), "PNG")] * 200


REQUESTS: dict[str, tuple[Callable[[], list[bytes]], Geometry]] = {
    "png": (png, ANY),
    "jpeg": (jpeg, NEAREST),
    "scans": (scans, NEAREST),
    "tiff-deflate": (lambda: tiff(compression="tiff_adobe_deflate"), ANY),
    "tiff-lzw": (lambda: tiff(compression="tiff_lzw"), ANY),
    "tiff-floats": (floats, ANY),
    "tiff-tiles": (tiles, ANY),
    "tiff-strips": (strips, ANY),
    "gif": (gif, ANY),
    "webp": (webp, ANY),
    "long": (long, ANY),
    "long-opencv": (long, CUBIC),
}


def read(files: Sequence[bytes], wanted: Geometry) -> Rows:
    parts = {f"file{number}": file for number, file in enumerate(files)}
    message = Message({"content-type": "multipart/form-data; boundary=x"}, None, parts)
    expects = Accepts(wanted, ROWS)
    return bodies.read([bodies.opened(message, bodies.form_of(message), expects)], wanted)[0]


@pytest.mark.alone
@pytest.mark.parametrize("name", REQUESTS)
def test_no_request_takes_more_than_a_few_seconds(name: str) -> None:
    make, wanted = REQUESTS[name]
    files = make()
    assert sum(map(len, files)) <= int(settings.read(CHECKOUT / "config.properties")["max_request_size"])
    started = time.process_time()
    rows = read(files, wanted)
    taken = time.process_time() - started
    print(f"{name}: {taken:.2f} s, {len(rows.images)} of {len(files)} pictures")
    assert len(rows.images) >= 1, "refusing everything would pass too"
    assert {error.code for error in rows.errors.values()} <= {"too_many_pixels"}
    assert taken < SECONDS
    assert np.isfinite(rows.images).all()
