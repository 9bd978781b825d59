"""The kinds of traffic that a secret hash meets: its users', thieves' with and without images, and noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

import recipes
from zoo import datasets
from zoo.datasets import Images
from zoo.generator import untrained

SEED = 0
GENERATORS = 5


def kinds(recipe: recipes.Recipe, test: Images, data: Path | None) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and images (n,C,S,S) of each kind, as many as the test split has at most; always the same ones.

    The generators are DFME's, fresh from their initialisation, which is where a data-free thief begins. Raises
    DatasetError.
    """
    rows, channels, size, _ = test.pixels.shape
    yield f"benign ({test.name})", test.pixels
    yield from surrogates(recipe, test, data).items()
    yield "uniform noise", torch.rand(test.pixels.shape, generator=torch.Generator().manual_seed(SEED))
    part = -(-rows // GENERATORS)
    generated = [untrained(part, channels=channels, size=size, seed=SEED + number) for number in range(GENERATORS)]
    yield "untrained generators", torch.stack(generated, dim=1).flatten(0, 1)[:rows]


def surrogates(recipe: recipes.Recipe, test: Images, data: Path | None) -> dict[str, torch.Tensor]:
    """As many images as the test split has, at most, of each surrogate that the recipe's attacks use, by name."""
    _, channels, size, _ = test.pixels.shape
    named = {table["surrogate"] for table in recipe.tables.get("attacks", {}).values() if "surrogate" in table}
    loaded = [datasets.load(name, "train", root=data, size=size, channels=channels) for name in sorted(named)]
    return {f"thief ({images.name})": images.pixels[: len(test)] for images in loaded}
