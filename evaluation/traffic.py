"""The images that a service receives: its users', as they are and after a benign shift, attackers', and noise.

Always the same images for the same input. In a shift, directions take turns along the batch and noise is seeded. A gate
must not take a shifted image for an attack; SAME's paper tests none of this: its benign stream is the victim's own test
set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

import recipes
from zoo import datasets
from zoo.datasets import Images
from zoo.generator import untrained
from zoo.images import size_of

SEED = 0
GENERATORS = 5

Shift = Callable[[torch.Tensor], torch.Tensor]
"""float32 (N,C,S,S) in [0, 1] to the same"""


def kinds(recipe: recipes.Recipe, test: Images, data: Path | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and images (n,C,S,S) of each kind, as many as the test split has at most; always the same ones.

    The generators are DFME's, fresh from their initialisation, which is where a data-free attacker begins. Raises
    DatasetError.
    """
    rows, channels, size = len(test), test.stored.shape[1], size_of(test.stored)
    yield f"benign ({test.name})", test.pixels
    yield from surrogates(recipe, test, data).items()
    yield "uniform noise", torch.rand(test.pixels.shape, generator=torch.Generator().manual_seed(SEED))
    part = -(-rows // GENERATORS)
    generated = [untrained(part, channels=channels, size=size, seed=SEED + number) for number in range(GENERATORS)]
    yield "untrained generators", torch.stack(generated, dim=1).flatten(0, 1)[:rows]


def surrogates(recipe: recipes.Recipe, test: Images, data: Path | None) -> dict[str, torch.Tensor]:
    """As many images as the test split has, at most, of each surrogate that the recipe's attacks use, by name."""
    channels, size = test.stored.shape[1], size_of(test.stored)
    named = {table["surrogate"] for table in recipe.tables.get("attacks", {}).values() if "surrogate" in table}
    loaded = [datasets.load(name, "train", root=data, size=size, channels=channels) for name in sorted(named)]
    return {f"thief ({images.name})": images.pixels[: len(test)] for images in loaded}


def rotated(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """By exactly so many degrees about the middle, one to the left, the next to the right; black moves in."""
    turns = torch.ones(len(images))
    turns[1::2] = -1
    angle = turns * math.radians(degrees)
    zero = torch.zeros(len(images))
    first, second = [angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero]
    theta = torch.stack([*first, *second], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False).clamp(0, 1)


def moved(images: torch.Tensor, pixels: int) -> torch.Tensor:
    """By so many whole pixels: right, left, down, up in turn; black moves in."""
    height, width = images.shape[2:]
    framed = F.pad(images, [pixels] * 4)
    result = torch.empty_like(images)
    for turn, (left, top) in enumerate(((0, pixels), (2 * pixels, pixels), (pixels, 0), (pixels, 2 * pixels))):
        result[turn::4] = framed[turn::4, :, top : top + height, left : left + width]
    return result


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """By a Gaussian of `sigma` pixels, out to three sigmas; edges are repeated."""
    reach = math.ceil(3 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=images.dtype)
    line = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    channels = images.shape[1]
    framed = F.pad(images, [reach] * 4, mode="replicate")
    return F.conv2d(framed, kernel.expand(channels, 1, -1, -1), groups=channels).clamp(0, 1)


def brightened(images: torch.Tensor, by: float) -> torch.Tensor:
    """Every pixel by so much, clipped."""
    return (images + by).clamp(0, 1)


def contrasted(images: torch.Tensor, times: float) -> torch.Tensor:
    """Every pixel's distance from its image's mean, times so much, clipped."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + times * (images - mean)).clamp(0, 1)


def noisy(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """Independent Gaussian noise on every pixel, clipped."""
    drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(SEED))
    return (images + deviation * drawn).clamp(0, 1)


SHIFTS: Mapping[str, Shift] = {
    "rotated 15 degrees": partial(rotated, degrees=15),
    "rotated 30 degrees": partial(rotated, degrees=30),
    "moved 3 pixels": partial(moved, pixels=3),
    "blurred, sigma 1": partial(blurred, sigma=1.0),
    "brighter by 0.2": partial(brightened, by=0.2),
    "darker by 0.2": partial(brightened, by=-0.2),
    "contrast x 0.5": partial(contrasted, times=0.5),
    "contrast x 1.5": partial(contrasted, times=1.5),
    "Gaussian noise 0.1": partial(noisy, deviation=0.1),
}
