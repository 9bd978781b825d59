"""Pictures of any size to pixels of one: geometry as torchvision rounds it, OpenCV's resize to one level."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pictures.fitting import fitted
from pictures.model_input import ModelInput
from pictures.resampling import resampled, taps

RAMP = (np.arange(35).reshape(5, 7) * 7 % 256).astype(np.uint8)
# cv2.resize of RAMP, opencv-python-headless 5.0.0.93: to (3,4), and the third row of (6,9)
OPENCV = {
    "nearest": (
        [[0, 7, 21, 35], [49, 56, 70, 84], [147, 154, 168, 182]],
        [49, 49, 56, 63, 70, 70, 77, 84, 91],
    ),
    "linear": (
        [[19, 31, 43, 55], [101, 113, 125, 137], [182, 194, 207, 219]],
        [77, 82, 88, 93, 98, 104, 109, 115, 119],
    ),
    "area": (
        [[23, 35, 47, 59], [101, 113, 125, 137], [179, 191, 203, 215]],
        [78, 83, 88, 93, 99, 105, 110, 115, 120],
    ),
    "cubic": (
        [[15, 28, 40, 53], [100, 113, 125, 138], [185, 198, 210, 223]],
        [76, 81, 87, 92, 98, 103, 108, 115, 119],
    ),
}


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    random = np.random.default_rng(width * height)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


@pytest.mark.parametrize("mode", OPENCV)
def test_opencv_s_resize_to_one_level(mode: str) -> None:
    smaller, row = OPENCV[mode]
    assert np.abs(resampled(RAMP, (3, 4), mode).astype(int) - smaller).max() <= 1
    assert np.abs(resampled(RAMP, (6, 9), mode)[2].astype(int) - row).max() <= 1
    coloured = resampled(np.stack([RAMP] * 3, axis=2), (3, 4), mode)
    np.testing.assert_array_equal(coloured[..., 1], resampled(RAMP, (3, 4), mode))


@pytest.mark.parametrize("mode", ["linear", "area", "cubic", "area-growing"])
@pytest.mark.parametrize(("source", "target"), [(7, 4), (7, 9), (100, 33), (64, 64), (5, 1)])
def test_weights_of_a_pixel_sum_to_1(mode: str, source: int, target: int) -> None:
    places, weights = taps(source, target, mode)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert places.min() >= 0
    assert places.max() < source


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (300, 300), (257, 999)])
def test_resize_and_crop_are_torchvision_s(size: tuple[int, int]) -> None:
    from torchvision.transforms import v2

    picture = photograph(*size)
    transform = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    expected = transform(picture)
    found = fitted(picture, ModelInput(224, resize=256).geometry)
    assert torch.equal(torch.from_numpy(found), expected)


def test_what_just_covers_is_cut_out_of_the_centre() -> None:
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 255
    # a filter reaches a little beyond what is cut out, as torchvision's does
    assert fitted(Image.fromarray(wide), ModelInput(10).geometry)[:, :, 1:-1].min() > 250
    assert fitted(photograph(40, 20), ModelInput((30, 10)).geometry).shape == (3, 30, 10)


def test_stretching_takes_all_of_a_picture() -> None:
    picture = photograph(40, 20)
    expected = np.asarray(picture.resize((12, 12), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(fitted(picture, ModelInput(12, fit="stretch").geometry), expected)


def test_a_letterbox_is_filled_around() -> None:
    found = fitted(
        Image.fromarray(np.full((10, 40, 3), 200, np.uint8)), ModelInput((20, 20), fit="letterbox", fill=7).geometry
    )
    assert found.shape == (3, 20, 20)
    assert (found[:, 8:12] > 190).all()
    assert (found[:, :6] == 7).all()
    assert (found[:, 14:] == 7).all()


def test_gray_is_pillow_s_and_gray_pictures_become_rgb() -> None:
    picture = photograph(12, 12)
    np.testing.assert_array_equal(fitted(picture, ModelInput(12, 1).geometry)[0], np.asarray(picture.convert("L")))
    gray = fitted(picture.convert("L"), ModelInput(12).geometry)
    assert gray.shape == (3, 12, 12)
    np.testing.assert_array_equal(gray[0], gray[2])


def test_a_picture_of_the_size_is_left_as_it_is() -> None:
    picture = photograph(12, 12)
    for library, mode in (("pillow", "lanczos"), ("opencv", "linear")):
        found = fitted(picture, ModelInput(12, library=library, interpolation=mode).geometry)
        np.testing.assert_array_equal(found, np.asarray(picture).transpose(2, 0, 1))


def test_libraries_differ_where_a_picture_shrinks() -> None:
    picture = photograph(200, 200)
    one = fitted(picture, ModelInput(24).geometry).astype(int)
    other = fitted(picture, ModelInput(24, library="opencv", interpolation="linear").geometry).astype(int)
    assert np.abs(one - other).max() > 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, "height: expected an integer from 1 to 4096, got 0"),
        ({"channels": 4}, "channels: expected 1 or 3, got 4"),
        ({"fit": "pad"}, "fit: expected one of exact, crop, stretch, letterbox, got 'pad'"),
        ({"library": "cv2"}, "library: expected one of pillow, opencv, got 'cv2'"),
        ({"interpolation": "linear"}, "interpolation of pillow: expected one of nearest, .*, got 'linear'"),
        ({"resize": 8}, "resize: expected at least the shorter side that is cut out, got 8"),
        ({"resize": 256, "fit": "letterbox"}, "resize: expected 0, a picture that fits by 'letterbox'"),
        ({"mean": (0.1, 0.2)}, "mean: expected one value, or one for each of 3 channels"),
        ({"std": (0.0,)}, "std: expected values above 0"),
        ({"scale": 0.0}, "scale: expected a number above 0"),
        ({"fill": 256}, "fill: expected an integer from 0 to 255, got 256"),
        ({"type": "uint8"}, "type: expected scale 255 without mean and std"),
        ({"layout": "NHW"}, "layout: expected one with channels, images have 3"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelInput(**{"size": 224, **fields})  # type: ignore[arg-type]


def test_slopes_and_offsets_are_the_formula_s() -> None:
    model = ModelInput(8, scale=255.0, mean=(103.939, 116.779, 123.68), std=(1.0, 2.0, 4.0))
    pixel = np.array([0.1, 0.5, 0.9])
    expected = (pixel * 255 - [103.939, 116.779, 123.68]) / [1, 2, 4]
    np.testing.assert_allclose(pixel * model.slopes() + model.offsets(), expected)
    assert ModelInput(8, 3, mean=(0.5,), std=(0.5,)).offsets() == [-1.0] * 3


def test_a_picture_may_be_stretched_and_its_centre_cut_out() -> None:
    """As many owners have it: resize((256, 256)), then the middle 224."""
    picture = photograph(90, 60)
    squeezed = picture.resize((40, 40), Image.Resampling.LANCZOS).crop((4, 4, 36, 36))
    wanted = ModelInput(32, fit="stretch", resize=40, interpolation="lanczos").geometry
    np.testing.assert_array_equal(fitted(picture, wanted), np.asarray(squeezed).transpose(2, 0, 1))
    assert fitted(picture, ModelInput((20, 40), fit="stretch", resize=25).geometry).shape == (3, 20, 40)
