"""A small victim that every clone can learn: which quarter of the image is brightest."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from attacks.oracle import Answers
from attacks.transfer import Collector, TransferSet

SIZE = 14
CLASSES = 4


def probabilities(images: torch.Tensor) -> torch.Tensor:
    """softmax of the four quarters' mean brightness, sharp: float32 (N, 4)."""
    return (40 * F.adaptive_avg_pool2d(images, 2).flatten(1)).softmax(dim=1)


def oracle(images: torch.Tensor) -> Answers:
    """Soft answers."""
    told = probabilities(images)
    return Answers(told.argmax(dim=1), told)


def label_oracle(images: torch.Tensor) -> Answers:
    """Labels only."""
    return Answers(probabilities(images).argmax(dim=1))


def images(count: int, *, seed: int) -> torch.Tensor:
    """Four even quarters of random brightness: float32 (count, 1, 14, 14) in [0, 1]."""
    coarse = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(SIZE, SIZE))


def transfer_set(count: int, *, seed: int = 0) -> TransferSet:
    """`count` images with soft answers."""
    collector = Collector()
    asked = images(count, seed=seed)
    collector.add(asked, oracle(asked))
    return collector.transfer_set()
