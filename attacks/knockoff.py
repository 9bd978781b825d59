"""Knockoff Nets with the random policy (Orekondy et al., CVPR 2019, sec. 4.1; EDM, ICLR 2021, sec. 5.1).

The thief owns a surrogate set from another domain, asks about each of its images once in random order, and trains a
clone on the answers. The choice of the surrogate decides the result more than anything else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from attacks.clone import Clone, Cloning
from attacks.oracle import Answers
from attacks.service import Service
from attacks.thief import check
from attacks.transfer import Collector, TransferSet
from zoo import datasets


@dataclass(frozen=True)
class Knockoff:
    """[attacks.knockoff].

    surrogate: data set of the thief, as zoo.datasets.load spells it; its training split unless it pins another.
    budget: images the thief may be charged for; the attack ends earlier if the surrogate set is exhausted.
    rows: images in one request.
    """

    surrogate: str
    budget: int
    rows: int = 64

    def __post_init__(self) -> None:
        check(self)


class KnockoffThief:
    """The random policy over `surrogate`, float32 (N, C, H, W) in [0, 1], each image asked at most once."""

    def __init__(self, surrogate: torch.Tensor, *, seed: int) -> None:
        self._surrogate = surrogate
        self._order = torch.randperm(len(surrogate), generator=torch.Generator().manual_seed(seed))
        self._next = 0
        self._collector = Collector()

    def propose(self, rows: int) -> torch.Tensor | None:
        """The next at most `rows` images of the random order; None when all were asked."""
        chosen = self._order[self._next : self._next + rows]
        if not len(chosen):
            return None
        self._next += len(chosen)
        return self._surrogate[chosen]

    def observe(self, images: torch.Tensor, answers: Answers) -> None:
        """Remember the answers; the random policy does not look at them."""
        self._collector.add(images, answers)

    def transfer_set(self) -> TransferSet:
        """All answered images so far."""
        return self._collector.transfer_set()

    def clone(self) -> Clone | None:
        """None: clones are trained from the transfer set."""
        return None

    def own(self) -> TransferSet | None:
        """None: the surrogate set's labels are of another task."""
        return None


def prepare(
    parameters: Knockoff,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> KnockoffThief:
    """The thief of a recipe, its surrogate set converted to the geometry of the service; `root` holds data sets.

    cloning: not needed, since this thief learns nothing between queries.
    """
    surrogate = datasets.load(parameters.surrogate, "train", root=root, size=service.size, channels=service.channels)
    return KnockoffThief(surrogate.pixels, seed=seed)
