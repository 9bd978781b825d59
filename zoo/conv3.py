"""Conv3 of the EDM and SAME family: three 3x3 convolutions, two linear layers, no batch normalisation.

Kariyappa et al., ICLR 2021, sec. 5.1 (EDM's MNIST victim and perceptual hash) and Xie et al., AAAI 2024
(SAME). Other papers use the name Conv3 for networks with other poolings and a 256-wide linear layer.
"""

from __future__ import annotations

from torch import nn

LARGEST = 32


def conv3(*, classes: int, channels: int, size: int, width: int) -> nn.Sequential:
    """Conv3 on normalised images (N,C,S,S), to logits (N,K).

    width multiplies the 16, 32 and 64 filters and the 256 hidden units; the papers' network has width 2.
    Images larger than 32 x 32 are resized to that first, as the family does. The family pools behind ReLU; before it
    the outputs are the same bits, and an epoch on a CPU takes a quarter less.
    """
    resize = [nn.Upsample(size=(LARGEST, LARGEST), mode="bilinear")] if size > LARGEST else []
    pooled = (((min(size, LARGEST) - 2) // 2) - 4) // 2
    first, second, third, hidden = 16 * width, 32 * width, 64 * width, 256 * width
    return nn.Sequential(
        *resize,
        nn.Conv2d(channels, first, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, 3),
        nn.ReLU(),
        nn.Conv2d(second, third, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(third * pooled**2, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
