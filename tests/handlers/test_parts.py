"""Files with as many parts as they may have, and one more; and that Pillow's own work is what is bounded."""

from __future__ import annotations

import time
from io import BytesIO

import pytest
from PIL import Image

from defenses.policy import Input
from handlers import parts
from handlers.errors import RequestError
from handlers.images import read_image

EMPTY_TEXT = b"\0\0\0\0tEXt\x00\x00\x00\x00"


def file(form: str, side: int = 28) -> bytes:
    out = BytesIO()
    Image.effect_noise((side, side), 50).convert("RGB").save(out, form)
    return out.getvalue()


PNG, JPEG = file("PNG"), file("JPEG")
SCAN = JPEG[JPEG.index(b"\xff\xda") : -2]
STUFFING = {
    "chunks": lambda count: PNG[:33] + EMPTY_TEXT * count + PNG[33:],
    "late chunks": lambda count: PNG[:-12] + EMPTY_TEXT * count + PNG[-12:],
    "segments": lambda count: JPEG[:2] + b"\xff\xe2\0\2" * count + JPEG[2:],
    "padding": lambda count: JPEG[:2] + b"\xff" * count + JPEG[2:],
    "junk": lambda count: JPEG[:20] + b"\0" * count + JPEG[20:],
    "restarts": lambda count: JPEG[:20] + b"\xff\xd0" * count + JPEG[20:],
    "extensions": lambda count: JPEG[:20] + b"\xff\xf5" * count + JPEG[20:],
    "scans": lambda count: JPEG[:-2] + SCAN[:20] * count + JPEG[-2:],
}


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("side", [1, 28, 500])
def test_files_of_pillow_have_few_parts(form: str, side: int) -> None:
    assert not parts.too_many(file(form, side))


@pytest.mark.parametrize("stuffing", STUFFING)
def test_a_few_parts_more_are_nothing_and_hundreds_are_too_many(stuffing: str) -> None:
    assert not parts.too_many(STUFFING[stuffing](40))
    assert parts.too_many(STUFFING[stuffing](400))
    assert parts.too_many(bytearray(STUFFING[stuffing](400)))


def test_a_long_file_may_have_more() -> None:
    texts = (b"\0\0\x04\0tEXt" + bytes(1024 + 4)) * 400
    assert not parts.too_many(PNG[:33] + texts + PNG[33:])


def test_what_follows_a_picture_is_no_part_of_it() -> None:
    assert not parts.too_many(PNG + bytes(100_000))
    assert not parts.too_many(b"GIF89a" + bytes(100_000))
    assert not parts.too_many(b"")
    assert not parts.too_many(PNG[:9])
    assert not parts.too_many(b"\xff\xd8\xff")


@pytest.mark.parametrize("stuffing", STUFFING)
def test_megabytes_of_parts_take_no_seconds(stuffing: str) -> None:
    piece = len(STUFFING[stuffing](1)) - len(STUFFING[stuffing](0))
    data = STUFFING[stuffing](5_000_000 // piece)
    started = time.perf_counter()
    with pytest.raises(RequestError):
        read_image(data, Input(3, 28, 28))
    assert time.perf_counter() - started < 2  # unbounded, 3 to 17 on an idle machine
