"""One decoder: training, calibration and serving get the same pixels of a picture, or refuse it with the same words."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from handlers.errors import RequestError
from handlers.images import FAULTS, read_image
from pictures.errors import OtherSize, PictureError, TooLarge, Unsupported
from pictures.geometry import Geometry
from pictures.model_input import ModelInput
from pictures.picture import GAP, Picture
from pictures.quiet import quiet
from tests.pictures.corpus import HEIGHT, LOSS, MAKE, WIDTH, file_name, gray, picture, plain, saved, with_alpha
from zoo.imagefolder import every_image, imagefolder
from zoo.images import DatasetError

EXACT = Geometry(3, HEIGHT, WIDTH)
FITTED = ModelInput((16, 12), resize=20)


def served(data: bytes, wanted: Geometry) -> NDArray[np.uint8] | str:
    """Bytes, or the words of the refusal."""
    try:
        return np.rint(read_image(data, wanted) * 255).astype(np.uint8)
    except RequestError as error:
        return error.message


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHWARDEN_PICTURES", str(tmp_path / "pictures"))
    return tmp_path


@pytest.mark.parametrize("name", MAKE)
def test_a_picture_becomes_what_viewers_show_or_is_refused(name: str) -> None:
    odd = MAKE[name]()
    found = served(odd.data, EXACT)
    if odd.refused:
        assert isinstance(found, str), "expected a refusal"
        assert found.startswith(odd.refused)
        return
    assert not isinstance(found, str), found
    assert found.shape == (3, HEIGHT, WIDTH)
    if odd.becomes == "other":
        return
    wanted = [plain(), np.repeat(gray()[:, :, None], 3, axis=2)]
    near = [int(np.abs(found.transpose(1, 2, 0).astype(int) - each).max()) for each in wanted]
    if odd.becomes == "near":
        assert min(near) <= LOSS
    else:
        assert near[odd.becomes == "gray"] == 0


@pytest.mark.parametrize("name", MAKE)
def test_training_calibration_and_serving_see_the_same(name: str, stored: Path) -> None:
    odd = MAKE[name]()
    folder = stored / "photos" / "cat"
    folder.mkdir(parents=True)
    (folder / file_name(name)).write_bytes(odd.data)
    found = served(odd.data, FITTED.geometry)
    for read in (trained, calibrated):
        if isinstance(found, str):
            with pytest.raises(DatasetError) as caught:
                read(folder)
            assert f"{file_name(name)}: {found}" in str(caught.value)
        else:
            np.testing.assert_array_equal(read(folder), found[np.newaxis])


def trained(folder: Path) -> NDArray[np.uint8]:
    return imagefolder(folder.parent, "train", wanted=FITTED, share=1e-9).stored.numpy()


def calibrated(folder: Path) -> NDArray[np.uint8]:
    return every_image(folder, FITTED).numpy()


def test_there_are_some_sixty_of_them_and_no_format_is_refused_whole() -> None:
    assert len(MAKE) >= 60
    accepted = {name.split(",")[0] for name, make in MAKE.items() if not make().refused}
    assert accepted >= {"png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm"}


@pytest.mark.parametrize("background", [0, 128, 255])
@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_transparent_parts_lie_on_the_background(format_: str, background: int) -> None:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, :10] = 255
    data = saved(with_alpha(alpha), format_, **({"lossless": True, "exact": True} if format_ == "WEBP" else {}))
    found = Picture(data).fitted(Geometry(3, HEIGHT, WIDTH, background=background)).transpose(1, 2, 0)
    np.testing.assert_array_equal(found[:, :10], plain()[:, :10])
    assert (found[:, 10:] == background).all()


def photograph(width: int, height: int, **options: object) -> bytes:
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / 40 + k) * np.cos(y / (30 + 9 * k)) for k in range(3)]
    return saved(Image.fromarray(np.stack(waves, 2).astype(np.uint8)), "JPEG", quality=85, **options)


@pytest.mark.parametrize(
    ("wanted", "scale"),
    [
        (ModelInput(224, resize=256), 2),
        (ModelInput(64, resize=72), 8),
        (ModelInput(224, resize=256, interpolation="nearest"), 1),
        (ModelInput(224, resize=256, library="opencv", interpolation="area"), 1),
        (ModelInput(224, fit="letterbox"), 2),
        (ModelInput((600, 800), fit="stretch"), 1),
    ],
)
def test_a_large_jpeg_is_decoded_at_a_scale_that_leaves_more_than_is_needed(wanted: ModelInput, scale: int) -> None:
    data = photograph(1600, 1200)
    seen = Picture(data)
    found = seen.fitted(wanted.geometry)
    whole = Picture(saved(Image.open(BytesIO(data)), "PNG")).fitted(wanted.geometry)
    assert seen._scale(wanted.geometry) == scale
    assert np.abs(found.astype(int) - whole).max() <= (0 if scale == 1 else 6)
    assert np.abs(found.astype(int) - whole).mean() < 1
    np.testing.assert_array_equal(found, seen.fitted(wanted.geometry))  # from what it kept, or not
    assert GAP == 2


def test_the_scale_counts_the_sides_that_are_shown() -> None:
    """A photograph on its side is scaled by its upright sides."""
    exif = Image.Exif()
    exif[0x0112] = 6
    strip = ModelInput((64, 16), fit="stretch").geometry
    lying, upright = Picture(photograph(1600, 400, exif=exif)), Picture(photograph(1600, 400))
    assert lying.size == (1600, 400)
    assert lying._scale(strip) == 8
    assert upright._scale(strip) == 2


def test_more_megapixels_than_are_allowed_are_refused_by_the_header() -> None:
    wanted = ModelInput(8, megapixels=0.5).geometry
    data = photograph(1000, 501)
    with pytest.raises(TooLarge, match=r"expected a picture of at most 0\.5 megapixels, got 0\.5"):
        Picture(data).fitted(wanted)
    Picture(photograph(1000, 500)).fitted(wanted)
    ihdr = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\2\0\0\0"
    for header in (ihdr, ihdr + b"\0" * 4):
        with pytest.raises(PictureError):
            Picture(header).fitted(wanted)


def test_a_strip_that_would_grow_is_refused() -> None:
    """One pixel high and wide enough, it would be resized to gigabytes."""
    strip = saved(Image.new("L", (60_000, 1)), "PNG")
    with pytest.raises(TooLarge, match="got one 60000 times as long as it is wide"):
        Picture(strip).fitted(ModelInput(224, resize=256).geometry)
    assert Picture(strip).fitted(ModelInput(224, fit="letterbox").geometry).shape == (3, 224, 224)


def test_many_scans_of_many_pixels_are_refused() -> None:
    data = photograph(1600, 1200, progressive=True)
    wanted = ModelInput(64, megapixels=2).geometry
    Picture(data).fitted(wanted)
    last = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(Unsupported, match="few scans for its size, got more"):
        Picture(data[:-2] + last * 40 + data[-2:]).fitted(wanted)


def test_an_exact_policy_takes_one_size() -> None:
    with pytest.raises(OtherSize, match=f"expected {WIDTH} x {HEIGHT} pixels, got 40 x 30"):
        Picture(photograph(40, 30)).fitted(EXACT)
    assert {OtherSize, TooLarge, Unsupported} <= FAULTS.keys()


def test_threads_read_side_by_side_and_leave_warnings_as_they_were() -> None:
    names = [name for name, make in MAKE.items() if not make().refused]
    files = [MAKE[name]().data for name in names] * 3
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        side_by_side = list(pool.map(lambda data: Picture(data).fitted(EXACT), files))
    assert warnings.filters == before
    for data, found in zip(files, side_by_side, strict=True):
        np.testing.assert_array_equal(found, Picture(data).fitted(EXACT))


def test_warnings_stay_off_until_the_last_has_left() -> None:
    before = list(warnings.filters)
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with quiet():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with quiet():
        leave.set()
        thread.join(10)
        with warnings.catch_warnings(record=True) as met:
            warnings.warn("what a file holds", UserWarning, stacklevel=1)
        assert not met
    assert warnings.filters == before


def test_the_plain_picture_is_what_it_is() -> None:
    assert picture().size == (WIDTH, HEIGHT)
