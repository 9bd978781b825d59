"""Random copies of a batch: the benign variation that training, clones and invariance checks share.

One sampling grid a row, so every image of a batch gets its own rotation, shift, scale, flip and crop, and the whole
batch is warped in one call on whatever device it lives. Light and colour are drawn a row too. Draws come from the
caller's CPU generator, so that a run can be resumed and repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch.nn import functional as F


class Variation(Protocol):
    """Makes of every image of a batch (N, C, H, W) another one much like it; the CPU `generator` owns the randomness.
    Values may leave [0, 1]."""

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor: ...


@dataclass(frozen=True)
class Affine:
    """How far a copy may stray: the strongest rotation, shift and scale, and whether it may be mirrored.

    degrees: rotation drawn from [-degrees, degrees].
    shift: each axis shifted by a share of the side drawn from [-shift, shift].
    scale: size drawn from [1 - scale, 1 + scale].
    flip: mirrored left to right with probability 1/2.
    fill: value of the pixels that move in from outside: "border" repeats the edge, "zeros" is black.
    whole: shifts of whole pixels, which blur nothing. Not with a rotation or a scale.
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    flip: bool = False
    fill: str = "zeros"
    whole: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise ValueError(f"degrees: expected 0 to 180, got {self.degrees}")
        if not 0 <= self.shift <= 1:
            raise ValueError(f"shift: expected a share of the side in 0 to 1, got {self.shift}")
        if not 0 <= self.scale < 1:
            raise ValueError(f"scale: expected 0 to below 1, got {self.scale}")
        if self.fill not in ("zeros", "border"):
            raise ValueError(f"fill: expected 'zeros' or 'border', got {self.fill!r}")
        if self.whole and (self.degrees or self.scale):
            raise ValueError("whole: expected false beside degrees or scale, got true; they need parts of pixels")

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """A warped copy of `images` (N,C,H,W), same dtype and device; the CPU `generator` owns the randomness."""
        return warped(images, self.grid_on(images, generator=generator), self.fill)

    def grid_on(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """`grid` for `images` (N,C,H,W), at whole pixels if asked for."""
        grid = self.grid(len(images), generator=generator)
        if self.whole:
            half = grid.new_tensor([images.shape[3], images.shape[2]]) / 2
            grid[:, :, 2] = (grid[:, :, 2] * half).round() / half
        return grid

    def grid(self, rows: int, *, generator: torch.Generator) -> torch.Tensor:
        """(rows,2,3): where each copy's pixels come from, as `affine_grid` counts."""

        def uniform(limit: float) -> torch.Tensor:
            return (2 * torch.rand(rows, generator=generator) - 1) * limit

        angle = uniform(self.degrees) * (math.pi / 180)
        zoom = 1 / (1 + uniform(self.scale))
        mirror = torch.ones(rows)
        if self.flip:
            mirror -= 2 * (torch.rand(rows, generator=generator) < 0.5).float()
        cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        # affine_grid counts in half sides, hence the factor 2
        entries = [
            cosine * mirror,
            -sine,
            2 * uniform(self.shift),
            sine * mirror,
            cosine,
            2 * uniform(self.shift),
        ]
        return torch.stack(entries, dim=1).view(-1, 2, 3)


@dataclass(frozen=True)
class Light:
    """How far a copy's light and colour may stray. Each factor is drawn from [1 - limit, 1 + limit].

    brightness: every pixel times a factor. contrast: its distance from the image's mean gray, times a factor.
    saturation: its distance from its own gray, times a factor; of no effect on one channel. gray: probability of losing
    all colour.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    gray: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {value}")

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """A copy of `images` (N,C,H,W) in [0,1] in other light, in [0,1], same dtype and device."""

        def factor(limit: float) -> torch.Tensor:
            drawn = 1 + (2 * torch.rand(len(images), 1, 1, 1, generator=generator) - 1) * limit
            return drawn.to(images)

        lit = (images * factor(self.brightness)).clamp(0, 1)
        mean = _gray(lit).mean((1, 2, 3), keepdim=True)
        lit = (mean + factor(self.contrast) * (lit - mean)).clamp(0, 1)
        if images.shape[1] == 1:
            return lit
        strength = factor(self.saturation)
        colourless = torch.rand(len(images), 1, 1, 1, generator=generator) < self.gray
        strength = strength.masked_fill(colourless.to(images.device), 0.0)
        own = _gray(lit)
        return (own + strength * (lit - own)).clamp(0, 1)


@dataclass(frozen=True)
class Augmentation:
    """A random part of the image, warped, in other light.

    crop: the part's least share of the area, drawn from [crop, 1]; its aspect ratio is drawn from 3/4 to 4/3, evenly in
    the logarithm, and it is stretched to the whole size. 1: none.
    """

    affine: Affine = field(default_factory=Affine)
    crop: float = 1.0
    light: Light = field(default_factory=Light)

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop: expected a share of the area above 0 and up to 1, got {self.crop}")
        if self.crop < 1 and self.affine.whole:
            raise ValueError(
                f"affine.whole: expected false beside crop {self.crop}, got true; it needs parts of pixels"
            )

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """A copy of `images` (N,C,H,W) in [0,1], in [0,1], same dtype and device; `generator` is the CPU's."""
        grid = self.affine.grid_on(images, generator=generator)
        if self.crop < 1:
            # the warp of the part is the part's place in the image after the warp: one sampling, not two
            size, place = self._part(len(images), generator)
            grid = torch.cat([size[:, :, None] * grid[:, :, :2], (size * grid[:, :, 2] + place)[:, :, None]], dim=2)
        return self.light(warped(images, grid, self.affine.fill), generator=generator)

    def _part(self, rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows,2) width and height of each part, as shares of the side, and (rows,2) its middle in half sides."""
        area = 1 - (1 - self.crop) * torch.rand(rows, generator=generator)
        aspect = torch.exp((2 * torch.rand(rows, generator=generator) - 1) * math.log(4 / 3))
        size = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1).clamp(max=1)
        return size, (1 - size) * (2 * torch.rand(rows, 2, generator=generator) - 1)


def warped(images: torch.Tensor, theta: torch.Tensor, fill: str) -> torch.Tensor:
    """Copies of images (N,C,H,W), each with its pixels from where its row of `theta` (N,2,3) says (Affine.grid)."""
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode=fill, align_corners=False)


def _gray(images: torch.Tensor) -> torch.Tensor:
    """(N,1,H,W) the luma of RGB images (ITU-R BT.601), or a gray image itself."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)
