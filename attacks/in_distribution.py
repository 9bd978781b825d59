"""The in-distribution thief: images of the victim's distribution, each asked about once.

The thief no defense can tell from a customer. What it gains has to be set against what it had: its images are
labelled, and a clone trained on them with their true labels, without a query, is this thief's baseline.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from attacks import owned
from attacks.clone import Cloning
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.thief import check


@dataclass(frozen=True)
class InDistribution:
    """[attacks.in-distribution].

    dataset: the victim's task, as zoo.datasets.load spells it; its training split, of which 1 % and 10 % are the usual
        budgets (the test split is the exam).
    budget: images the thief has, and may be charged for; fewer if the data set holds fewer.
    rows: images in one request.
    """

    dataset: str
    budget: int
    rows: int = 64

    def __post_init__(self) -> None:
        check(self)


def prepare(
    parameters: InDistribution,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe, its images in the geometry of the service; `root` holds data sets.

    `seed` draws the images and their order. `own` gives the same images in the same order with their true labels.
    cloning: not needed, since this thief learns nothing between queries.
    """
    images = owned.load(parameters.dataset, service, root)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    asked = images.rows(order[: parameters.budget])
    return ScriptedThief(_once(asked.pixels), own=asked.as_transfer_set())


def _once(images: torch.Tensor) -> Script:
    yield images
