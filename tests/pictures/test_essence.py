"""Files of Pillow's own with metadata of every kind; as many parts as there may be and one more; what reading costs."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from pictures import parts
from pictures.errors import Broken, PictureError, Unsupported
from pictures.essence import essence
from pictures.geometry import Geometry
from pictures.picture import Picture

SIDE = 28
RGB = Geometry(3, SIDE, SIDE)
EMPTY_TEXT = b"\0\0\0\0tEXt\x00\x00\x00\x00"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def file(form: str, side: int = SIDE, mode: str = "RGB", **options: object) -> bytes:
    out = BytesIO()
    picture(side).convert(mode).save(out, form, **options)
    return out.getvalue()


def picture(side: int = SIDE) -> Image.Image:
    levels = np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)
    return Image.fromarray(levels)


def camera(orientation: int | None = None) -> Image.Exif:
    """EXIF data as a camera writes them."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0132] = "Maker", "Model", "2024:01:01 00:00:00"
    exif[0x011A], exif[0x0128] = 72.0, 2
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + b"comment" * 20
    if orientation is not None:
        exif[0x0112] = orientation
    return exif


def pixels(data: bytes, wanted: Geometry = RGB) -> NDArray[np.uint8]:
    return Picture(data).fitted(wanted)


def texts() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "A picture")
    info.add_text("Description", "Many words. " * 20, zip=True)
    info.add_itxt("Author", "Jörg", "de", "Verfasser", zip=True)
    info.add_itxt("XML:com.adobe.xmp", XMP)
    info.add(b"gAMA", (45_455).to_bytes(4, "big"))
    info.add(b"tIME", b"\x07\xe8\1\1\0\0\0")
    return info


WITH_METADATA = {
    "PNG exif": lambda **more: file("PNG", exif=camera().tobytes(), **more),
    "PNG profile": lambda **more: file("PNG", icc_profile=PROFILE, **more),
    "PNG texts": lambda **more: file("PNG", pnginfo=texts(), **more),
    "PNG resolution": lambda **more: file("PNG", dpi=(300, 300), **more),
    "JPEG exif": lambda **more: file("JPEG", exif=camera().tobytes(), **more),
    "JPEG profile": lambda **more: file("JPEG", icc_profile=PROFILE * 30, **more),
    "JPEG comment": lambda **more: file("JPEG", comment=b"comment" * 200, **more),
    "JPEG xmp": lambda **more: file("JPEG", xmp=XMP, **more),
    "JPEG resolution": lambda **more: file("JPEG", dpi=(300, 300), **more),
    "JPEG progressive": lambda **more: file("JPEG", progressive=True, comment=b"comment", **more),
    "JPEG rgb": lambda **more: file("JPEG", keep_rgb=True, comment=b"comment", **more),
}


def decoded(data: bytes) -> NDArray[np.uint8]:
    """The pixels of all of the file, not turned, by Pillow."""
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def kept(data: bytes) -> bytes:
    return bytes(essence(data).data)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", WITH_METADATA)
def test_metadata_are_dropped_before_pillow_sees_a_file_and_no_pixel_changes(kind: str, mode: str) -> None:
    if kind == "JPEG rgb" and mode == "L":
        mode = "RGB"
    data = WITH_METADATA[kind](mode=mode)
    left = kept(data)
    assert len(left) < len(data) or kind == "JPEG resolution"  # which stands in the segment that names the colours
    with Image.open(BytesIO(left)) as image:
        image.load()
        assert not image.info.keys() & {"exif", "icc_profile", "xmp", "comment", "gamma", "Title", "Description"}
    np.testing.assert_array_equal(decoded(left), decoded(data))
    np.testing.assert_array_equal(pixels(data), decoded(data).transpose(2, 0, 1))


@pytest.mark.parametrize("data", [file(form, mode=mode) for form in ("PNG", "JPEG") for mode in ("1", "L", "RGB")])
def test_a_plain_file_is_not_copied(data: bytes) -> None:
    assert essence(data).data is data


def test_a_palette_and_transparency_are_kept_and_adobes_word_on_colours_too() -> None:
    for data in (
        file("PNG", mode="P"),
        file("PNG", mode="P", transparency=3),
        file("PNG", transparency=(1, 2, 3)),
        file("JPEG", mode="CMYK"),
        file("JPEG", keep_rgb=True),
        file("GIF"),
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
    ):
        assert kept(data) == data
    assert kept(PNG + b"behind") == PNG


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_orientation_is_read_in_both_byte_orders(form: str, order: str, orientation: int) -> None:
    exif = camera(orientation)
    exif.endian = order
    data = file(form, exif=exif.tobytes(), comment=b"comment") if form == "JPEG" else file(form, exif=exif.tobytes())
    assert essence(data).orientation in ({orientation} if orientation else {1})


def test_an_orientation_behind_the_pixels_counts_and_one_of_no_exif_does_not() -> None:
    data = file("PNG", exif=camera(6).tobytes())
    at = data.index(b"eXIf") - 4
    length = 12 + int.from_bytes(data[at : at + 4], "big")
    late = data[:at] + data[at + length : -12] + data[at : at + length] + data[-12:]
    assert essence(late).orientation == 6
    assert essence(WITH_METADATA["PNG texts"]()).orientation == 1
    assert essence(WITH_METADATA["JPEG xmp"]()).orientation == 1


def test_several_pictures_are_distinguished_from_one() -> None:
    other = Image.new("RGB", (SIDE, SIDE))
    for form in ("PNG", "MPO"):
        data = file(form, save_all=True, append_images=[other])
        assert essence(data).several
        with pytest.raises(Unsupported, match="expected a single picture, got several frames"):
            pixels(data)
    two = file("MPO", save_all=True, append_images=[other])
    map_ = two[:2] + b"\xff\xe1" + (2 + 21).to_bytes(2, "big") + b'x hdrgm:Version="1.0"' + two[2:]
    assert not essence(map_).several  # the second is a map of the first one's brightness
    assert not essence(file("MPO")).several


def test_a_header_a_palette_and_transparency_stand_once_and_the_header_first() -> None:
    data = file("PNG", mode="P")
    header, palette = data[8:33], data[33 : 33 + 12 + int.from_bytes(data[33:37], "big")]
    for bent in (data[:33] + header + data[33:], data[:33] + palette + data[33:], data[:8] + palette + data[8:]):
        with pytest.raises(Broken, match="expected an intact picture"):
            essence(bent)


def test_what_is_cut_off_in_metadata_is_refused_as_in_pixels() -> None:
    texts_ = WITH_METADATA["PNG texts"]()
    late = PNG[:-12] + texts_[33:150]
    for data in (texts_[:120], WITH_METADATA["JPEG comment"]()[:100], late):
        with pytest.raises(Broken):
            pixels(data)


PNG, JPEG = file("PNG"), file("JPEG")
SCAN = JPEG[JPEG.index(b"\xff\xda") : -2]
TABLE = JPEG[JPEG.index(b"\xff\xdb") :][:69]
TIFF = file("TIFF")
GIF = file("GIF", mode="P")
WEBP = file("WEBP")
Stuffed = Callable[[int], bytes]
STUFFING: dict[str, Stuffed] = {
    "chunks": lambda count: PNG[:33] + EMPTY_TEXT * count + PNG[33:],
    "late chunks": lambda count: PNG[:-12] + EMPTY_TEXT * count + PNG[-12:],
    "pieces": lambda count: PNG[:33] + b"\0\0\0\1IDAT\0\0\0\0\0" * count + PNG[33:],
    "segments": lambda count: JPEG[:2] + b"\xff\xe2\0\2" * count + JPEG[2:],
    "padding": lambda count: JPEG[:2] + b"\xff" * count + JPEG[2:],
    "junk": lambda count: JPEG[:20] + b"\0" * count + JPEG[20:],
    "restarts": lambda count: JPEG[:20] + b"\xff\xd0" * count + JPEG[20:],
    "tables": lambda count: JPEG[:20] + TABLE * (count // 4) + JPEG[20:],
    "entries": lambda count: entries(count),
    "comments": lambda count: GIF[: GIF.rindex(b",", 0, 800)] + b"!\xfe\1x\0" * count + GIF[GIF.rindex(b",", 0, 800) :],
    "blocks": lambda count: GIF[:-2] + b"\1\0" * count + GIF[-2:],
    "boxes": lambda count: WEBP + b"XXXX\0\0\0\0" * count,
    "scans": lambda count: JPEG[:-2] + SCAN[:20] * count + JPEG[-2:],
}


def entries(count: int) -> bytes:
    """A TIFF file with so many entries more in its directory, a private tag each."""
    place = int.from_bytes(TIFF[4:8], "little")
    length = int.from_bytes(TIFF[place : place + 2], "little")
    end = place + 2 + 12 * length
    directory = (min(length + count, 65_535)).to_bytes(2, "little") + TIFF[place + 2 : end]
    private = (65_000).to_bytes(2, "little") + (1).to_bytes(2, "little") + (1).to_bytes(4, "little") + bytes(4)
    start = len(TIFF) + len(TIFF) % 2
    whole = TIFF[:4] + start.to_bytes(4, "little") + TIFF[8:].ljust(start - 8, b"\0")
    return whole + directory + private * count + bytes(4)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("side", [1, 28, 500])
def test_files_of_pillow_have_few_parts(form: str, side: int) -> None:
    assert essence(file(form, side)).orientation == 1


@pytest.mark.parametrize("stuffing", STUFFING)
def test_a_few_parts_more_are_nothing_and_hundreds_are_too_many(stuffing: str) -> None:
    essence(STUFFING[stuffing](40))
    for data in (STUFFING[stuffing](400), bytearray(STUFFING[stuffing](400))):
        with pytest.raises(Unsupported, match="expected a picture of few parts, got far more"):
            essence(data)


def test_a_long_file_may_have_more_up_to_a_bound() -> None:
    text = b"\0\0\x04\0tEXt" + bytes(1024 + 4)
    assert kept(PNG[:33] + text * parts.MOST + PNG[33:]) == PNG
    with pytest.raises(Unsupported):
        essence(PNG[:33] + text * (parts.MOST + 1) + PNG[33:])


def test_a_frame_header_and_tables_longer_than_any_are_refused() -> None:
    for marker in (b"\xff\xc0", b"\xff\xdb"):
        with pytest.raises(Broken, match="expected an intact picture"):
            essence(JPEG[:20] + marker + b"\xff\xff" + bytes(65_533) + JPEG[20:])


def test_what_libjpeg_refuses_before_a_scan_is_left_for_it_to_refuse() -> None:
    for marker in (b"\xff\xf5", b"\xff\xc8", b"\xff\xd8", b"\xff\xd9", b"\xff\x02"):
        with pytest.raises(Broken):
            pixels(JPEG[:20] + marker * 40 + JPEG[20:], RGB)


def test_pixel_data_end_where_no_picture_has_more() -> None:
    most = parts.ROOM + parts.DEPTH * SIDE * SIDE
    piece = (60_000).to_bytes(4, "big") + b"IDAT" + bytes(60_004)
    assert len(kept(PNG[:-12] + piece * 9 + PNG[-12:])) < most + 60_000 + len(PNG)
    assert len(kept(JPEG + bytes(10 * most))) <= most + len(JPEG)
    np.testing.assert_array_equal(pixels(JPEG + bytes(10 * most), RGB), pixels(JPEG, RGB))


@pytest.mark.parametrize("stuffing", STUFFING)
def test_megabytes_of_parts_take_no_seconds(stuffing: str) -> None:
    piece = len(STUFFING[stuffing](4)) - len(STUFFING[stuffing](0))
    data = STUFFING[stuffing](4 * 5_000_000 // piece)
    started = time.perf_counter()
    with pytest.raises(PictureError):
        pixels(data)
    assert time.perf_counter() - started < 2  # unbounded, 3 to 17 on an idle machine


def test_no_warning_of_pillows_comes_of_metadata() -> None:
    with warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        for make in WITH_METADATA.values():
            pixels(make(), RGB)
    assert not met
