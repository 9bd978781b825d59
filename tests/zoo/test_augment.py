"""Random copies, against pictures whose warps are known by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from zoo.augment import Affine, Augmentation, Light


def copies(affine: Affine, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return affine(images, generator=torch.Generator().manual_seed(seed))


def picture(rows: int = 1) -> torch.Tensor:
    return torch.rand(rows, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_no_strength_is_the_identity() -> None:
    images = picture(4)
    torch.testing.assert_close(copies(Affine(), images), images, atol=1e-5, rtol=0)


def test_a_mirrored_copy_is_the_image_left_to_right() -> None:
    images = picture(64)
    warped = copies(Affine(flip=True), images)
    mirrored = images.flip(3)
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(warped, images, strict=True)]
    turned = [torch.allclose(a, b, atol=1e-5) for a, b in zip(warped, mirrored, strict=True)]
    assert all(a != b for a, b in zip(kept, turned, strict=True))
    assert 16 < sum(turned) < 48


def test_a_shift_stays_within_its_limit_and_fills_with_black() -> None:
    images = torch.zeros(256, 1, 20, 20)
    images[:, :, 10, 10] = 1.0
    warped = copies(Affine(shift=0.2), images)
    mass = warped.sum((1, 2, 3))
    torch.testing.assert_close(mass, torch.ones(256), atol=1e-4, rtol=0)
    line = torch.arange(20.0)
    across = (warped.sum((1, 2)) * line).sum(1) - 10
    assert across.abs().max() <= 0.2 * 20 + 1e-3
    assert across.abs().max() > 3
    full = copies(Affine(shift=0.5), torch.ones(64, 1, 20, 20))
    assert full.min() == 0
    assert copies(Affine(shift=0.5, fill="border"), torch.ones(64, 1, 20, 20)).min() == pytest.approx(1)


@pytest.mark.parametrize(
    "vary", [Affine(shift=0.2, flip=True, whole=True), Augmentation(Affine(shift=0.2, whole=True))]
)
def test_a_shift_of_whole_pixels_blurs_nothing(vary: Affine | Augmentation) -> None:
    images = torch.zeros(256, 1, 20, 14)
    images[:, :, 10, 6] = 1.0
    moved = vary(images, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved.amax((1, 2, 3)), torch.ones(256), atol=1e-5, rtol=0)
    assert (moved.flatten(1) > 1e-5).sum(1).eq(1).all()
    rows, columns = moved.flatten(1).argmax(1) // 14, moved.flatten(1).argmax(1) % 14
    assert set(rows.tolist()) == set(range(6, 15))
    assert len(set(columns.tolist())) >= 6


def test_a_rotation_keeps_a_disc_and_stays_within_its_limit() -> None:
    axis = torch.linspace(-1, 1, 41)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    bar = ((y.abs() < 0.1) & (x.abs() < 0.8)).float().expand(64, 1, 41, 41)
    warped = copies(Affine(degrees=30), bar)
    # the angle of the bar's axis, from its second moments
    xx, yy, xy = ((warped * each).sum((1, 2, 3)) for each in (x * x, y * y, x * y))
    angle = torch.rad2deg(0.5 * torch.atan2(2 * xy, xx - yy))
    assert angle.abs().max() <= 31
    assert angle.abs().max() > 20
    assert (angle > 0).any()
    assert (angle < 0).any()


def test_the_generator_owns_the_randomness() -> None:
    affine, images = Affine(degrees=20, shift=0.1, scale=0.2, flip=True), picture(8)
    torch.manual_seed(0)
    first = copies(affine, images, seed=3)
    torch.manual_seed(99)
    assert torch.equal(copies(affine, images, seed=3), first)
    assert not torch.equal(copies(affine, images, seed=4), first)


def test_each_row_is_warped_for_itself() -> None:
    images = picture(1).expand(16, -1, -1, -1)
    warped = copies(Affine(degrees=20), images)
    assert len({row.numpy().tobytes() for row in warped}) == 16


def augmented(augment: Augmentation | Light, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment(images, generator=torch.Generator().manual_seed(seed))


def test_no_augmentation_is_the_identity_and_crops_and_light_stay_in_range() -> None:
    images = picture(16)
    torch.testing.assert_close(augmented(Augmentation(), images), images, atol=1e-5, rtol=0)
    strong = Augmentation(Affine(30, 0.2, 0.2, flip=True), 0.5, Light(1.0, 1.0, 1.0, 0.5))
    warped = augmented(strong, images)
    assert warped.shape == images.shape
    assert 0 <= warped.min() <= warped.max() <= 1
    assert torch.equal(warped, augmented(strong, images))
    assert not torch.equal(warped, augmented(strong, images, seed=1))


def test_a_crop_is_a_part_of_the_image_and_no_less_than_was_asked_for() -> None:
    # a picture whose pixels say where they are
    line = torch.linspace(0, 1, 40)
    across, down = line.expand(40, 40), line[:, None].expand(40, 40)
    place = torch.stack([across, down, down]).expand(256, 3, 40, 40)
    parts = augmented(Augmentation(crop=0.5), place)
    width = parts[:, 0].amax((1, 2)) - parts[:, 0].amin((1, 2))
    height = parts[:, 1].amax((1, 2)) - parts[:, 1].amin((1, 2))
    assert width.max() <= 1.001
    area = width * height
    assert 0.4 < area.min() < 0.6  # to within the half pixels that a picture's edges lose
    assert area.max() > 0.85
    assert (width / height).max() < 4 / 3 + 0.05
    assert (width / height).max() > 1.2
    # no black from outside
    assert parts[:, 2, 1:].min() >= 0
    assert (parts[:, 1, 0, 0] > 0.1).any()


def test_a_crop_and_a_warp_in_one_are_the_crop_and_then_the_warp() -> None:
    line = torch.linspace(0, 3, 64)
    waves = (torch.sin(2 * line)[:, None] + torch.cos(line)[None, :]).expand(32, 1, 64, 64) / 4 + 0.5
    warp = Affine(20, 0.05, 0.1, fill="border")
    both = augmented(Augmentation(warp, crop=0.6), waves)
    drawn = torch.Generator().manual_seed(0)
    warp.grid(32, generator=drawn)  # the warp is drawn first
    size, place = Augmentation(crop=0.6)._part(32, drawn)
    theta = torch.cat([torch.diag_embed(size), place[:, :, None]], dim=2)
    part = F.affine_grid(theta, [32, 1, 64, 64], align_corners=False)
    cropped = F.grid_sample(waves, part, align_corners=False, padding_mode="border")
    inside = (slice(None), slice(None), slice(20, 44), slice(20, 44))  # beyond a crop's edge the image goes on
    torch.testing.assert_close(both[inside], copies(warp, cropped)[inside], atol=0.01, rtol=0)
    assert not torch.allclose(both[inside], copies(warp, waves)[inside], atol=0.05)


def test_light_is_a_factor_of_each_image() -> None:
    images = torch.full((200, 1, 4, 4), 0.5)
    lit = augmented(Light(brightness=0.4), images)
    assert torch.allclose(lit, lit[:, :, :1, :1].expand_as(lit))
    assert 0.3 <= lit.min() < 0.35
    assert 0.65 < lit.max() <= 0.7
    edge = torch.tensor([0.4, 0.6]).repeat(200, 1, 4, 2)
    sharp = augmented(Light(contrast=0.5), edge)
    torch.testing.assert_close(sharp.mean((1, 2, 3)), torch.full((200,), 0.5), atol=1e-6, rtol=0)
    spread = (sharp.amax((1, 2, 3)) - sharp.amin((1, 2, 3))) / 0.2
    assert 0.5 - 1e-5 <= spread.min() < 0.6
    assert 1.4 < spread.max() <= 1.5 + 1e-5


def test_colour_is_lost_with_the_probability_asked_for_and_brightness_kept() -> None:
    images = picture(1000)
    faded = augmented(Light(gray=0.2), images)
    gray = (faded - faded.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-6
    assert 140 < gray.sum() < 260
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    torch.testing.assert_close((faded * weights).sum(1), (images * weights).sum(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(faded[~gray], images[~gray], atol=1e-6, rtol=0)
    one = picture(4)[:, :1]
    torch.testing.assert_close(augmented(Light(saturation=1.0, gray=1.0), one), one)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Light(brightness=1.5), "brightness: expected 0 to 1, got 1.5"),
        (lambda: Affine(degrees=5, whole=True), "whole: expected false beside degrees or scale"),
        (lambda: Augmentation(Affine(whole=True), crop=0.5), r"affine\.whole: expected false beside crop 0\.5"),
        (lambda: Augmentation(crop=0.0), "crop: expected a share of the area above 0 and up to 1, got 0"),
    ],
)
def test_what_light_and_crops_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degrees": 200.0}, "degrees: expected 0 to 180, got 200"),
        ({"shift": -0.1}, r"shift: expected a share of the side in 0 to 1, got -0\.1"),
        ({"scale": 1.0}, "scale: expected 0 to below 1, got 1"),
        ({"fill": "grey"}, "fill: expected 'zeros' or 'border', got 'grey'"),
    ],
)
def test_what_a_recipe_cannot_ask_for(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Affine(**options)  # type: ignore[arg-type]
