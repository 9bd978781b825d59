"""LeNet5 and its two narrow relatives, the members of MISLEADER's MNIST ensemble.

LeCun et al., "Gradient-based learning applied to document recognition", 1998, in the modern form (ReLU,
maximum pooling, full connections between feature maps) of the data-free distillation and extraction papers.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class Widths(NamedTuple):
    """Filters of the three convolutions and units of the hidden linear layer."""

    first: int
    second: int
    third: int
    hidden: int


LENET5 = Widths(6, 16, 120, 84)
HALF = Widths(3, 8, 60, 42)
FIFTH = Widths(4, 10, 30, 30)


def lenet5(*, classes: int, channels: int, size: int, widths: Widths) -> nn.Sequential:
    """LeNet5 on normalised images (N,C,S,S) with S = 28 to 32, to logits (N,K).

    The third convolution sees all of the 5x5 map that 32 x 32 leaves; smaller images are padded to 32 x 32.
    """
    return nn.Sequential(
        nn.Conv2d(channels, widths.first, 5, padding=(33 - size) // 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(widths.first, widths.second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(widths.second, widths.third, 5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(widths.third, widths.hidden),
        nn.ReLU(),
        nn.Linear(widths.hidden, classes),
    )
