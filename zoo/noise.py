"""Noise at several scales: images without a subject, such as data-free thieves send."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from zoo.images import Size, sides


def noise(count: int, *, channels: int, size: Size, grain: int, generator: torch.Generator) -> torch.Tensor:
    """Images (count,channels,height,width) float32 in [0,1], independent from about every `grain`-th pixel to the next.

    grain: from 1, where every pixel is drawn for itself from [0,1]; above it the pixels between are interpolated.
    The CPU `generator` owns the randomness.
    """
    height, width = sides(size)
    if not 1 <= grain <= min(height, width):
        raise ValueError(f"grain: expected 1 to the side {min(height, width)}, got {grain}")
    rows, columns = max(2, round(height / grain)), max(2, round(width / grain))
    drawn = torch.rand(count, channels, rows, columns, generator=generator)
    return F.interpolate(drawn, size=(height, width), mode="bilinear", align_corners=True)
