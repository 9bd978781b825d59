"""JBDA towards random targets (Juuti et al., PRADA, EuroS&P 2019; EDM, Kariyappa et al., ICLR 2021, sec. 5.1).

As JBDA (attacks.jacobian), but every copy has a separate target class:

    x' = clip(x - step * sign(grad_x CE(clone(x), t)))    t uniform over the classes other than the one served for x

in one step, as in EDM, or in `iterations` parts of step / iterations, each along the gradient at that point.
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


@dataclass(frozen=True)
class JBDATR(jacobian.Augmentation):
    """[attacks.jbda-tr]; see Augmentation. iterations: parts of the step."""

    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1:
            raise ValueError(f"iterations: expected at least 1, got {self.iterations}")

    def move(self, network: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Copies of `images` moved towards the classes `targets`, int64 (N,)."""
        for _ in range(self.iterations):
            direction = jacobian.climb(network, images, targets, jacobian.doubt)
            images = (images - self.step / self.iterations * direction).clamp(0, 1)
        return images


def others(labels: torch.Tensor, classes: int, *, generator: torch.Generator) -> torch.Tensor:
    """For each of `labels`, int64 (N,), another class, uniformly: int64 (N,). Needs two classes at least."""
    return (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes


def prepare(
    parameters: JBDATR,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe; `seed` owns all of its randomness, `root` holds data sets. The clones it trains on the way
    are of `cloning`'s architecture; the one that counts is trained afterwards."""
    generator = torch.Generator().manual_seed(seed)

    def move(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, number: int) -> torch.Tensor:
        return parameters.move(network, images, others(labels, service.classes, generator=generator))

    return jacobian.prepare(parameters, move, service, cloning=cloning, generator=generator, root=root)
