"""Random affine copies, against pictures whose warps are known by hand."""

from __future__ import annotations

import pytest
import torch

from zoo.augment import Affine


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
