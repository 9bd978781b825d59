"""Small copies: means over boxes, and whole numbers that no backend rounds otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo import models
from zoo.images import Size
from zoo.shrink import ONE, Shrink, shares


@pytest.mark.parametrize(("pixels", "side"), [(224, 64), (224, 28), (96, 64), (64, 64), (1000, 7), (48, 31)])
def test_shares_are_whole_sum_to_one_and_lie_near_the_exact_ones(pixels: int, side: int) -> None:
    found = shares(pixels, side).numpy()
    np.testing.assert_array_equal(found, np.rint(found))
    np.testing.assert_array_equal(found.sum(1), ONE)
    edges = np.arange(side + 1) * pixels / side
    for box in range(side):
        covered = np.clip(
            np.minimum(edges[box + 1], np.arange(1, pixels + 1)) - np.maximum(edges[box], np.arange(pixels)), 0, None
        )
        assert np.abs(found[box] - covered * ONE * side / pixels).max() <= 1


def test_a_whole_factor_is_average_pooling() -> None:
    images = torch.rand(2, 3, 128, 64, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.avg_pool2d(images, (4, 2))
    torch.testing.assert_close(Shrink((128, 64), 32)(images), expected)
    # within half a level where the copy, and its source, are rounded to levels
    assert (Shrink((128, 64), 32, whole=True)(images) - expected).abs().max() <= 1.01 / 255


@pytest.mark.parametrize("size", [224, (96, 200), 61])
def test_a_whole_copy_has_the_same_bits_however_it_is_computed(size: Size) -> None:
    shrink = Shrink(size, 28, whole=True)
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.rand(7, 3, height, width, generator=torch.Generator().manual_seed(1))
    together = shrink(images)
    assert torch.equal(together, torch.cat([shrink(row[None]) for row in images]))
    in_doubles = torch.round(
        (shrink.rows.double() @ torch.round(images * 255).double() @ shrink.columns.double() + 0.25) / ONE**2
    )
    assert torch.equal(torch.round(together * 255).double(), in_doubles)


def test_a_copy_of_the_same_size_is_the_image() -> None:
    levels = torch.randint(256, (2, 1, 28, 28)) / 255
    assert torch.equal(Shrink(28, 28, whole=True)(levels), levels)


def test_a_copy_is_no_larger_than_the_image() -> None:
    with pytest.raises(ValueError, match="side of the small copy: expected 1 to 48, got 64"):
        Shrink((48, 192), 64)


def test_a_network_may_look_at_a_small_copy() -> None:
    torch.manual_seed(0)
    arguments = {"classes": 4, "channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3}
    network = models.build("conv3", size=(48, 192), shrunk=32, width=1, **arguments).eval()
    images = torch.rand(3, 3, 48, 192, requires_grad=True)
    network(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert "shrink" not in " ".join(network.state_dict())
    with pytest.raises(models.ArchitectureError, match="shrunk: expected at most the image's shorter side, 48, got 64"):
        models.build("conv3", size=(48, 192), shrunk=64, **arguments)
    with pytest.raises(models.ArchitectureError, match="expected square images, got 48 x 192; take a small copy"):
        models.build("conv3", size=(48, 192), **arguments)


def test_a_hash_network_s_copy_is_the_one_it_was_made_for() -> None:
    torch.manual_seed(0)
    arguments = {"classes": 4, "channels": 1, "mean": [0.5], "std": [0.2], "width": 1, "projections": 3}
    small, large = (
        models.build("conv3", size=size, shrunk=shrunk, **arguments) for size, shrunk in ((28, 0), (96, 28))
    )  # type: ignore[arg-type]
    large.load_state_dict(small.state_dict())
    images = torch.rand(5, 1, 96, 96, generator=torch.Generator().manual_seed(2))
    for name, values in large(images).items():
        assert torch.equal(values, small(Shrink(96, 28, whole=True)(images))[name])
