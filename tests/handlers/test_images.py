"""Files made by Pillow itself, and the same files truncated, bent and mislabelled."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from handlers.errors import BadRequest, LoadError, RequestError, Undecodable, UnsupportedImage, WrongShape
from handlers.images import OLDEST, check_pillow, read_image, write_image
from pictures.geometry import Geometry

GRAY = Geometry(channels=1, height=4, width=5)
RGB = Geometry(channels=3, height=4, width=5)
LEVELS = np.arange(0, 200, 10, dtype=np.uint8).reshape(4, 5)


def file(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


def colours() -> Image.Image:
    return Image.fromarray(np.stack([LEVELS, LEVELS[::-1], 255 - LEVELS], axis=2))


def test_gray_and_rgb_files_are_their_bytes_over_255() -> None:
    pixels = read_image(file(Image.fromarray(LEVELS)), GRAY)
    assert pixels.shape == (1, 4, 5)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[0], LEVELS.astype(np.float32) / 255)
    pixels = read_image(file(colours()), RGB)
    assert pixels.shape == (3, 4, 5)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, np.asarray(colours(), np.float32).transpose(2, 0, 1) / 255)


def test_other_modes_are_converted() -> None:
    gray = read_image(file(Image.fromarray(LEVELS)), RGB)
    np.testing.assert_array_equal(gray, np.stack([LEVELS.astype(np.float32) / 255] * 3))
    bilevel = read_image(file(Image.fromarray(LEVELS > 90)), GRAY)
    np.testing.assert_array_equal(bilevel[0], (LEVELS > 90).astype(np.float32))
    flat = Image.new("RGB", (5, 4), (250, 50, 0))
    palette = read_image(file(flat.convert("P", palette=Image.Palette.ADAPTIVE)), RGB)
    np.testing.assert_array_equal(palette[:, 0, 0], np.array([250, 50, 0], np.float32) / 255)
    luma = read_image(file(flat), GRAY)
    np.testing.assert_allclose(luma, (0.299 * 250 + 0.587 * 50) / 255, atol=0.5 / 255)  # Pillow rounds to a byte


def test_a_jpeg_is_read() -> None:
    pixels = read_image(file(Image.new("RGB", (5, 4), (100, 150, 200)), "JPEG", quality=95), RGB)
    np.testing.assert_allclose(pixels[:, 2, 2], np.array([100, 150, 200]) / 255, atol=4 / 255)  # lossy


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
@pytest.mark.parametrize("expects", [GRAY, RGB])
def test_what_is_written_is_read(format_: str, expects: Geometry) -> None:
    pixels = np.full(expects.shape, 0.2, np.float32)
    back = read_image(write_image(pixels, format_), expects)
    np.testing.assert_allclose(back, pixels, atol=0 if format_ == "PNG" else 2 / 255)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_a_truncated_file_is_undecodable(format_: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8))
    whole = file(noise, format_)
    for length in range(len(whole) * 3 // 4):
        with pytest.raises(Undecodable, match=r"expected an intact picture; this one|what begins as none of them"):
            read_image(whole[:length], RGB)


@pytest.mark.parametrize("format_", ["GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_other_formats_are_read_too(format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    flat = Image.new("RGB", (5, 4), (250, 50, 0))
    np.testing.assert_array_equal(read_image(file(flat, format_, **options), RGB), read_image(file(flat), RGB))


@pytest.mark.parametrize("format_", ["ICO", "PCX", "TGA", "JPEG2000"])
def test_formats_that_pillow_knows_and_nobody_asked_for_are_not_opened(format_: str) -> None:
    with pytest.raises(Undecodable, match=r"expected a picture \(PNG, JPEG, .*\), got what begins as none of them"):
        read_image(file(colours(), format_), RGB)


def test_another_size_is_refused() -> None:
    with pytest.raises(WrongShape, match="expected 5 x 4 pixels, got 4 x 5"):
        read_image(file(Image.new("L", (4, 5))), GRAY)


def oriented(image: Image.Image, form: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return file(image, form, exif=exif.tobytes())


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_orientation_says(orientation: int, form: str) -> None:
    image = colours() if orientation < 5 else colours().transpose(Image.Transpose.ROTATE_90)
    data = oriented(image, form, orientation)
    shown = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert shown.size == (5, 4)
    np.testing.assert_array_equal(read_image(data, RGB), np.asarray(shown, np.float32).transpose(2, 0, 1) / 255)


def test_a_picture_on_its_side_has_the_size_that_is_shown() -> None:
    with pytest.raises(WrongShape, match="expected 5 x 4 pixels, got 4 x 5"):
        read_image(oriented(colours(), "JPEG", 6), RGB)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_is_none_means_nothing(orientation: int) -> None:
    data = oriented(colours(), "PNG", orientation)
    np.testing.assert_array_equal(read_image(data, RGB), read_image(file(colours()), RGB))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_exif_data_that_cannot_be_read_mean_nothing(exif: bytes) -> None:
    """And no warning of Pillow's comes of it, which would hold what a client sent."""
    upright = read_image(file(colours(), "JPEG"), RGB)
    np.testing.assert_array_equal(read_image(file(colours(), "JPEG", exif=exif), RGB), upright)


def test_metadata_are_not_read_broken_or_not() -> None:
    picture = file(colours())
    text = bytearray(chunk(b"tEXt", b"Title\0A picture"))
    text[-1] ^= 1
    broken = [picture[:33] + bytes(text) + picture[33:], picture[:-12] + bytes(text) + picture[-12:]]
    assert [pixels_or_code(data) for data in broken] == [pixels_or_code(picture)] * 2
    assert pixels_or_code(picture) == read_image(picture, RGB).tobytes()


def pixels_or_code(data: bytes) -> bytes | str:
    try:
        return read_image(data, RGB).tobytes()
    except BadRequest as error:
        return error.code


@pytest.mark.parametrize("found", ["9.5.0", "11.3.0", "12.2.0"])
def test_an_old_pillow_is_refused(found: str) -> None:
    with pytest.raises(LoadError, match=rf"expected Pillow {OLDEST[0]}.{OLDEST[1]} or later, got {found}, which has"):
        check_pillow(found)
    check_pillow("{}.{}.0".format(*OLDEST))
    check_pillow("13.1.0.dev0")


def test_an_old_pillow_is_refused_at_the_start() -> None:
    code = "import PIL.Image; PIL.__version__ = '11.0.0'; import handlers.images"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode
    assert "LoadError: expected Pillow" in ran.stderr


def test_a_file_of_many_parts_is_refused_before_pillow_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*args: object, **options: object) -> None:
        raise AssertionError("opened before its parts were counted")

    picture = file(colours())
    stuffed = picture[:33] + chunk(b"tEXt", b"") * 1_000 + picture[33:]
    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(UnsupportedImage, match="expected a picture of few parts, got far more; save it again"):
        read_image(stuffed, RGB)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int) -> bytes:
    """A PNG that states a size and holds no such picture."""
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0" * 50))


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: Image.Image) -> None:
        raise AssertionError("decoded before its size was checked")

    monkeypatch.setattr(Image.Image, "convert", decode)
    with pytest.raises(WrongShape, match="expected 5 x 4 pixels, got"):
        read_image(header(side, side), GRAY)


def test_each_kind_of_refusal_has_its_own_code_and_status() -> None:
    alpha = Image.fromarray(np.dstack([np.asarray(colours()), LEVELS]))
    large = Geometry(channels=3, height=4, width=5, fit="crop", megapixels=0.00001)
    refused = {
        ("unsupported_image", 400): (file(alpha), RGB),
        ("undecodable", 400): (b"text", RGB),
        ("wrong_shape", 400): (file(Image.new("L", (4, 5))), RGB),
        ("too_many_pixels", 413): (file(colours()), large),
    }
    for (code, status), (data, expects) in refused.items():
        with pytest.raises(RequestError) as caught:
            read_image(data, expects)
        assert (caught.value.code, caught.value.status, caught.value.unreadable) == (code, status, True)


@given(
    data=st.binary(max_size=200),
    base=st.sampled_from([b"", file(colours()), file(colours(), "JPEG"), header(5, 4)]),
    place=st.integers(0, 600),
)
def test_no_bytes_raise_anything_but_our_errors(data: bytes, base: bytes, place: int) -> None:
    bent = base[:place] + data + base[place + len(data) :]
    try:
        pixels = read_image(bent, RGB)
    except BadRequest:
        return
    assert pixels.shape == (3, 4, 5)
    assert ((pixels >= 0) & (pixels <= 1)).all()
