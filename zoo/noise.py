"""Noise at several scales: images without a subject, such as data-free thieves send."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def noise(count: int, *, channels: int, size: int, grain: int, generator: torch.Generator) -> torch.Tensor:
    """Images (count,channels,size,size) float32 in [0,1], independent from about every `grain`-th pixel to the next.

    grain: from 1, where every pixel is drawn for itself from [0,1]; above it the pixels between are interpolated.
    The CPU `generator` owns the randomness.
    """
    if not 1 <= grain <= size:
        raise ValueError(f"grain: expected 1 to the side {size}, got {grain}")
    side = max(2, round(size / grain))
    drawn = torch.rand(count, channels, side, side, generator=generator)
    return F.interpolate(drawn, size=(size, size), mode="bilinear", align_corners=True)
