"""The augmented-seeds thief: a small seed set of the task, and an endless stream of fresh copies of it.

If a gate accepts only images of the task, the cheapest such images are augmented seeds: slanted, bent and drawn with
another pen (zoo/writing.py). The thief knows the label of every copy already, so that the same augmentation without a
query is the baseline of this attack (attacks/unasked.py).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch

from attacks import owned
from attacks.clone import Cloning
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.thief import check
from zoo.writing import Writing

# least copies between two steps of the script
CHUNK = 256


@dataclass(frozen=True)
class AugmentedSeeds:
    """[attacks.augmented-seeds].

    dataset: where the seeds come from, the victim's task as zoo.datasets.load spells it: its training split.
    budget: images the thief may be charged for. rows: images in one request.
    seeds: images the thief starts from, as many of each class as there can be; they are asked about first.
    strength: of the copies, as zoo.writing.Writing's.
    """

    dataset: str
    budget: int
    rows: int = 64
    seeds: int = 150
    strength: float = 0.6

    def __post_init__(self) -> None:
        check(self)
        owned.check_seeds(self.seeds)
        Writing(self.strength)

    @property
    def variation(self) -> Writing:
        """What makes copies of the seeds; the baseline without a query has it too."""
        return Writing(self.strength)


def prepare(
    parameters: AugmentedSeeds,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe; `seed` owns seeds and copies, `root` holds data sets. It asks until its budget is spent.

    cloning: not needed, since this thief learns nothing between queries.
    """
    generator = torch.Generator().manual_seed(seed)
    seeds = owned.seeds(parameters.dataset, parameters.seeds, service, root, generator=generator)
    return ScriptedThief(_copies(seeds.pixels, parameters.variation, generator), own=seeds.as_transfer_set())


def _copies(seeds: torch.Tensor, variation: Writing, generator: torch.Generator) -> Script:
    yield seeds
    while True:
        # every seed once, then every seed a second time: alike often, wherever the budget ends
        turns = math.ceil(CHUNK / len(seeds))
        order = torch.cat([torch.randperm(len(seeds), generator=generator) for _ in range(turns)])
        yield variation(seeds[order], generator=generator)
