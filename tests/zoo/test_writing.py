"""Variations of writing: in range, repeatable, and as strong as asked."""

from __future__ import annotations

import pytest
import torch

from zoo import datasets
from zoo.writing import Writing


def varied(images: torch.Tensor, strength: float, *, seed: int = 0) -> torch.Tensor:
    return Writing(strength)(images, generator=torch.Generator().manual_seed(seed))


def test_copies_keep_range_and_geometry_and_repeat() -> None:
    images = datasets.load("digits", "test", channels=3).pixels[:20]
    copies = varied(images, 1.0)
    assert copies.shape == images.shape
    assert copies.dtype == torch.float32
    assert 0 <= copies.min() <= copies.max() <= 1
    assert torch.equal(copies, varied(images, 1.0))
    assert not torch.equal(copies, varied(images, 1.0, seed=1))
    # one image, twenty hands
    same = varied(images[:1].expand(20, -1, -1, -1), 0.5)
    assert len({row.numpy().tobytes() for row in same}) == 20


def test_the_strength_says_how_far_copies_stray() -> None:
    images = datasets.load("digits", "test").pixels[:100]
    far = [float((varied(images, strength) - images).abs().mean()) for strength in (0.0, 0.3, 0.6, 1.0)]
    assert far[0] < 1e-6
    assert 0.02 < far[1] < far[2] < far[3]


def test_strokes_get_thicker_and_thinner() -> None:
    bar = torch.zeros(200, 1, 28, 28)
    bar[:, :, 8:20, 12:16] = 1
    ink = varied(bar, 1.0).mean(dim=(1, 2, 3)) / bar[0].mean()
    assert ink.min() < 0.7
    assert ink.max() > 1.3


def test_ranges() -> None:
    with pytest.raises(ValueError, match=r"strength: expected 0 to 1, got 1\.5"):
        Writing(1.5)
