"""Jacobian-based data set augmentation (Papernot et al., ASIA CCS 2017; EDM, Kariyappa et al., ICLR 2021, sec. 5.1).

A few images of the victim's distribution, doubled in rounds by one step along the sign of a clone's gradient
(attacks.jacobian). The two papers step in opposite directions:

    "away" (EDM, the default):  x' = clip(x + step * sign(grad_x CE(clone(x), y)))    out of the class that was served
    "into" (Papernot et al.):   x' = clip(x + step * sign(grad_x clone(x)_y))         deeper into it, by its logit
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import nn

from attacks import jacobian
from attacks.clone import Cloning
from attacks.script import ScriptedThief
from attacks.service import Service

OBJECTIVES = {"away": jacobian.doubt, "into": jacobian.logit}


@dataclass(frozen=True)
class JBDA(jacobian.Augmentation):
    """[attacks.jbda]; see Augmentation.

    sign: "away" from the served class or "into" it.
    alternate: tau of Papernot et al.: the step changes its sign every so many rounds, (-1)^floor(round / tau) with
        rounds from 0; 0: never.
    """

    sign: str = "away"
    alternate: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sign not in OBJECTIVES:
            raise ValueError(f"sign: expected 'away' or 'into', got {self.sign!r}")
        if self.alternate < 0:
            raise ValueError(f"alternate: expected 0 or more rounds, got {self.alternate}")

    def move(self, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, number: int) -> torch.Tensor:
        """One step of every image; jacobian.Move."""
        turned = self.alternate > 0 and number // self.alternate % 2 == 1
        step = -self.step if turned else self.step
        return (images + step * jacobian.climb(network, images, labels, OBJECTIVES[self.sign])).clamp(0, 1)


def prepare(
    parameters: JBDA,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe; `seed` owns all of its randomness, `root` holds data sets. The clones it trains on the way
    are of `cloning`'s architecture; the one that counts is trained afterwards."""
    generator = torch.Generator().manual_seed(seed)
    return jacobian.prepare(parameters, parameters.move, service, cloning=cloning, generator=generator, root=root)
