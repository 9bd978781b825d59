"""The mixture thief: images mixed from two seeds each, between the classes, where the answers are most informative.

    mixup:    x = r a + (1 - r) b                                      (Zhang et al., ICLR 2018; r uniform, alpha = 1)
    CutMix:   x = a, but b in a rectangle of the share 1 - r of the area   (Yun et al., ICCV 2019)

Half of the images are made either way; a and b are fresh copies of two seeds (zoo/writing.py). The seeds' labels do not
determine that of a mixture; the victim's probabilities do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from attacks import owned
from attacks.augmented_seeds import AugmentedSeeds
from attacks.clone import Cloning
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from zoo.writing import Writing

# mixtures between two steps of the script
CHUNK = 256


@dataclass(frozen=True)
class Mixed(AugmentedSeeds):
    """[attacks.mixed]; strength: of the copies that are mixed; 0: the seeds as they are."""


def prepare(
    parameters: Mixed,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe; `seed` owns seeds and mixtures, `root` holds data sets. It asks about the seeds, then
    about mixtures until its budget is spent.

    cloning: not needed, since this thief learns nothing between queries.
    """
    generator = torch.Generator().manual_seed(seed)
    seeds = owned.seeds(parameters.dataset, parameters.seeds, service, root, generator=generator)
    return ScriptedThief(_mixtures(seeds.pixels, parameters.variation, generator), own=seeds.as_transfer_set())


def _mixtures(seeds: torch.Tensor, variation: Writing, generator: torch.Generator) -> Script:
    yield seeds
    while True:
        first, second = (
            variation(seeds[torch.randint(len(seeds), (CHUNK,), generator=generator)], generator=generator)
            for _ in range(2)
        )
        cutmix = torch.rand(CHUNK, generator=generator) < 0.5
        share = torch.rand(CHUNK, generator=generator)
        inside = rectangles(1 - share, seeds.shape[2:], generator=generator)
        weight = torch.where(cutmix[:, None, None], 1 - inside.float(), share[:, None, None])[:, None]
        yield weight * first + (1 - weight) * second


def rectangles(area: torch.Tensor, size: Sequence[int], *, generator: torch.Generator) -> torch.Tensor:
    """bool (n, height, width): a rectangle in each image, of the share `area` (n,) before it is cut off at the edges,
    in the image's proportions, its middle anywhere; the CPU `generator` owns the place."""
    reach = area.sqrt()[:, None] / 2
    middles = torch.rand(len(area), 2, generator=generator)
    rows, columns = (
        (torch.arange(side) + 0.5 - middle[:, None] * side).abs() < reach * side
        for side, middle in zip(size, middles.unbind(dim=1), strict=True)
    )
    inside: torch.Tensor = rows[:, :, None] & columns[:, None, :]
    return inside
