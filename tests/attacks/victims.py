"""A small victim that every clone can learn: which quarter of the image is brightest."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from attacks.oracle import REFUSED, Answers
from attacks.transfer import Collector, TransferSet

SIZE = 14
CLASSES = 4
# least mean square of a step, for `gated`
SHARP = 0.21


def probabilities(images: torch.Tensor) -> torch.Tensor:
    """softmax of the four quarters' mean brightness, sharp: float32 (N, 4)."""
    return (40 * F.adaptive_avg_pool2d(images, 2).flatten(1)).softmax(dim=1)


def oracle(images: torch.Tensor) -> Answers:
    """Soft answers."""
    response = probabilities(images)
    return Answers(response.argmax(dim=1), response)


def label_oracle(images: torch.Tensor) -> Answers:
    """Labels only."""
    return Answers(probabilities(images).argmax(dim=1))


def images(count: int, *, seed: int) -> torch.Tensor:
    """Four even quarters of random brightness: float32 (count, 1, 14, 14) in [0, 1]."""
    coarse = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(SIZE, SIZE))


def crisp(count: int, *, seed: int) -> torch.Tensor:
    """Black and white blocks, as sharp as can be: float32 (count, 1, 14, 14)."""
    coarse = torch.rand(count, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
    return F.interpolate((coarse > 0.5).float(), size=(SIZE, SIZE))


def gated(images: torch.Tensor) -> Answers:
    """Soft answers to sharp images; blurred ones are refused, by the mean square of the step to the next pixel."""
    steps = images.diff(dim=3).square().mean(dim=(1, 2, 3)) + images.diff(dim=2).square().mean(dim=(1, 2, 3))
    response, refused = probabilities(images), steps < SHARP
    return Answers(
        torch.where(refused, REFUSED, response.argmax(dim=1)), torch.where(refused[:, None], torch.nan, response)
    )


def transfer_set(count: int, *, seed: int = 0) -> TransferSet:
    """`count` images with soft answers."""
    collector = Collector()
    asked = images(count, seed=seed)
    collector.add(asked, oracle(asked))
    return collector.transfer_set()


class Counting:
    """Varies nothing, and counts what it was asked to."""

    seen = 0

    def __call__(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        self.seen += len(images)
        return images
