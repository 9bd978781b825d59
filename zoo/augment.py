"""Random affine copies of a batch: the benign variation that training, clones and invariance checks share.

One sampling grid a row, so every image of a batch gets its own rotation, shift, scale and flip, and the whole
batch is warped in one call on whatever device it lives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Affine:
    """How far a copy may stray: the strongest rotation, shift and scale, and whether it may be mirrored.

    degrees: rotation drawn from [-degrees, degrees].
    shift: each axis shifted by a share of the side drawn from [-shift, shift].
    scale: size drawn from [1 - scale, 1 + scale].
    flip: mirrored left to right with probability 1/2.
    fill: value of the pixels that move in from outside: "border" repeats the edge, "zeros" is black.
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    flip: bool = False
    fill: str = "zeros"

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise ValueError(f"degrees: expected 0 to 180, got {self.degrees}")
        if not 0 <= self.shift <= 1:
            raise ValueError(f"shift: expected a share of the side in 0 to 1, got {self.shift}")
        if not 0 <= self.scale < 1:
            raise ValueError(f"scale: expected 0 to below 1, got {self.scale}")
        if self.fill not in ("zeros", "border"):
            raise ValueError(f"fill: expected 'zeros' or 'border', got {self.fill!r}")

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """A warped copy of `images` (N,C,H,W), same dtype and device; the CPU `generator` owns the randomness."""

        def uniform(limit: float) -> torch.Tensor:
            return (2 * torch.rand(len(images), generator=generator) - 1) * limit

        angle = uniform(self.degrees) * (math.pi / 180)
        zoom = 1 / (1 + uniform(self.scale))
        mirror = torch.ones(len(images))
        if self.flip:
            mirror -= 2 * (torch.rand(len(images), generator=generator) < 0.5).float()
        cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        # affine_grid counts in half sides, hence the factor 2
        rows = [
            cosine * mirror,
            -sine,
            2 * uniform(self.shift),
            sine * mirror,
            cosine,
            2 * uniform(self.shift),
        ]
        theta = torch.stack(rows, dim=1).view(-1, 2, 3).to(images)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode=self.fill, align_corners=False)
