"""Random copies of pictures of writing: another slant, another hand, another pen.

An affine map and an elastic one (Simard, Steinkraus and Platt, "Best Practices for Convolutional Neural Networks
Applied to Visual Document Analysis", ICDAR 2003) say together where each pixel comes from; then the strokes are made
thicker or thinner, a part |w| of the way to the greatest or the least value v in each pixel's 3 x 3 neighbourhood:

    x' = x + |w| (v - x),   w uniform in [-strength, strength],   v the greatest value where w > 0, else the least

One bicubic sampling in all, since each one blurs, and blur is what a detector of foreign images sees first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

# at strength 1; see zoo.augment.Affine for the units
DEGREES = 20.0
SHIFT = 0.08
SCALE = 0.2
SHEAR = 0.3
# of the elastic map: its knots a side, and how far they move, in half sides
KNOTS = 5
ELASTIC = 0.12


@dataclass(frozen=True)
class Writing:
    """zoo.augment.Variation of writing, light on dark or dark on light. strength: 0 leaves images as they are, 1 is as
    far as a digit stays what it is, more or less."""

    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength: expected 0 to 1, got {self.strength}")

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """A copy of `images` (N, C, S, S) in [0, 1], in [0, 1], same dtype and device; the CPU `generator` owns the
        randomness."""

        def uniform(limit: float, *shape: int) -> torch.Tensor:
            return (2 * torch.rand(len(images), *shape, generator=generator) - 1) * limit * self.strength

        angle, shear, size = torch.deg2rad(uniform(DEGREES)), uniform(SHEAR), 1 + uniform(SCALE)
        cosine, sine = angle.cos() / size, angle.sin() / size
        # affine_grid counts in half sides, hence the factor 2
        rows = [cosine, shear * cosine - sine, 2 * uniform(SHIFT), sine, shear * sine + cosine, 2 * uniform(SHIFT)]
        theta = torch.stack(rows, dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
        knots = uniform(ELASTIC, 2, KNOTS, KNOTS).to(images)
        elastic = F.interpolate(knots, size=images.shape[2:], mode="bicubic", align_corners=True)
        grid = grid + elastic.permute(0, 2, 3, 1)
        warped = F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False).clamp(0, 1)
        pen = uniform(1, 1, 1, 1).to(images)
        thick = F.max_pool2d(warped, 3, stride=1, padding=1)
        thin = -F.max_pool2d(-warped, 3, stride=1, padding=1)
        return warped + pen.abs() * (torch.where(pen > 0, thick, thin) - warped)
