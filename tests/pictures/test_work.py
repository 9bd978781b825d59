"""What a picture may cost beyond its pixels: tiles and strips, samples of 16 bits, scans, and what it is resized to."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from assurance.fuzz import pngs, tiffs
from pictures import tiff
from pictures.errors import Broken, PictureError, Unsupported
from pictures.fitting import fitted
from pictures.geometry import Geometry
from pictures.picture import SCANS, Picture
from pictures.resampling import resampled

ANY = Geometry(3, 28, 28, fit="crop")
PLAIN = bytes(28 * 28)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def one_tile(side: int) -> bytes:
    packed = zlib.compress(bytes(side * side))
    fields = tiffs.tiled(tiffs.gray(28, 28, packed, tiffs.DEFLATE), side, side)
    return tiffs.tiff(fields, packed)


def test_a_tile_may_stand_over_the_picture_but_not_by_a_thousand_times() -> None:
    """A tile of 16,384 x 16,384 took 0.8 s and 270 MB, for a picture of 784 pixels and a file of 0.3 MB."""
    assert Picture(one_tile(512)).fitted(ANY).shape == (3, 28, 28)
    data = one_tile(4096)
    started = time.process_time()
    with pytest.raises(Unsupported, match="expected a TIFF file whose tiles cover its picture, got far larger ones"):
        Picture(data)
    assert time.process_time() - started < 0.05


def strips(width: int, height: int) -> bytes:
    """A strip for each row, all of the same bytes."""
    row = bytes(width)
    fields = tiffs.gray(width, height, row, rows=1)
    return tiffs.tiff({**fields, tiffs.STRIPS: [tiffs.START] * height, tiffs.STRIP_BYTES: [width] * height}, row)


def test_strips_are_as_many_as_a_picture_has_rows_and_no_strip_is_a_pixel() -> None:
    """65,500 strips of a pixel took 0.6 s."""
    assert Picture(strips(6000, 4000)).fitted(Geometry(1, 28, 28, fit="crop")).shape == (1, 28, 28)
    assert Picture(strips(1, 4000)).fitted(Geometry(1, 28, 28, fit="stretch")).shape == (1, 28, 28)
    with pytest.raises(Unsupported, match="few parts"):
        Picture(strips(1, 65_500))


@pytest.mark.parametrize("tag", sorted(tiff.SIDES))
def test_what_decides_the_bound_stands_once_and_is_one_number(tag: int) -> None:
    """Another reader might take another of them."""
    fields = tiffs.tiled(tiffs.gray(28, 28, PLAIN), 32, 32)
    again = (tag, tiffs.LONG, 1, (28).to_bytes(4, "little"))
    for data in (tiffs.tiff(fields, PLAIN, [again]), tiffs.tiff({**fields, tag: [28, 28]}, PLAIN)):
        with pytest.raises(Broken):
            Picture(data)
    others = {name: values for name, values in fields.items() if name != tag}
    for kind in (5, 9, 11, 12, 99):
        with pytest.raises(PictureError):
            Picture(tiffs.tiff(others, PLAIN, [(tag, kind, 1, again[3])])).fitted(ANY)


def deep_png() -> bytes:
    return pngs.sixteen_bits(np.zeros((50, 40), np.uint8), 2)


def deep_tiff() -> bytes:
    return saved(Image.fromarray(np.zeros((50, 40), np.uint16)), "TIFF")


def deep_rgb_tiff() -> bytes:
    pixels = bytes(6 * 50 * 40)
    fields = {**tiffs.gray(40, 50, pixels, samples=3), tiffs.PHOTOMETRIC: [2]}
    longer = (tiffs.BITS, tiffs.SHORT, 3, tiffs.START.to_bytes(4, "little"))
    del fields[tiffs.BITS]
    return tiffs.tiff(fields, b"\x10\0" * 3 + pixels[6:], [longer])


def floats() -> bytes:
    return saved(Image.fromarray(np.zeros((50, 40), np.float32)), "TIFF")


@pytest.mark.parametrize("make", [deep_png, deep_tiff, deep_rgb_tiff, floats])
def test_samples_of_more_than_8_bits_count_twice(make: Callable[[], bytes]) -> None:
    picture = Picture(make())
    assert picture.work(ANY) == 2 * picture.pixels == 4000
    for form in ("PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG"):
        assert Picture(saved(Image.new("RGB", (40, 50)), form)).work(ANY) == 2000
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    late = saved(Image.fromarray(noise), "TIFF", compression="tiff_lzw")  # what it states stands behind 64 KiB
    assert Picture(late).work(ANY) == 40_000


def test_scans_count_from_the_usual_number_on() -> None:
    data = saved(Image.new("RGB", (40, 50)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    few = data.count(b"\xff\xda")
    for scans, often in ((few, 1), (SCANS, 1), (SCANS + 1, 2), (60, 5)):
        assert Picture(data[:-2] + last * (scans - few) + data[-2:]).work(ANY) == often * 2000


def test_what_a_picture_is_resized_to_counts_where_it_is_more() -> None:
    wide = Picture(saved(Image.new("L", (400, 2)), "PNG"))
    assert wide.work(ANY) == 28 * 5600
    assert wide.work(Geometry(3, 28, 28, fit="letterbox")) == 800


@pytest.mark.parametrize("mode", ["nearest", "linear", "area", "cubic"])
@pytest.mark.parametrize(("size", "resize"), [((97, 31), 0), ((31, 97), 24), ((9, 40), 0), ((300, 200), 20)])
def test_only_what_is_cut_out_is_resized_and_it_is_the_same(mode: str, size: tuple[int, int], resize: int) -> None:
    levels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    wanted = Geometry(3, 16, 24, fit="crop", resize=resize, library="opencv", interpolation=mode)
    factor = resize / min(size) if resize else max(24 / size[0], 16 / size[1])
    width, height = (max(1, int(side * factor + 1e-9)) if resize else max(1, round(side * factor)) for side in size)
    whole = Image.fromarray(resampled(levels, (height, width), mode))
    left, top = round((width - 24) / 2), round((height - 16) / 2)
    expected = np.asarray(whole.crop((left, top, left + 24, top + 16))).transpose(2, 0, 1)
    np.testing.assert_array_equal(fitted(Image.fromarray(levels), wanted), expected)


def test_a_long_strip_costs_what_is_seen_of_it() -> None:
    """Whole, it took 1.8 s and a gigabyte."""
    wanted = Geometry(3, 224, 224, fit="crop", resize=256, library="opencv", interpolation="cubic")
    picture = Picture(saved(Image.new("RGB", (380, 1)), "PNG"))
    started = time.process_time()
    assert picture.fitted(wanted).shape == (3, 224, 224)
    assert time.process_time() - started < 0.3
