"""DCGAN: a generator that learns to draw images like those it is shown, and the discriminator it learns from.

Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks", ICLR
2016, in the form that Sanyal et al., CVPR 2022 (DFMS-HL) use at 32 x 32: four transposed convolutions of 8f, 4f, 2f
and f filters and a 1x1 convolution to the colours; four strided convolutions of f, 2f, 4f and 8f filters and one logit.

Four halvings want a side that 16 divides. For any other side S the generator draws the next larger one and keeps the
middle; the discriminator repeats the edges of what it is shown up to that same side. Nothing is resampled, and outside
of this file all images are (C,S,S) in [0,1].

Two things differ, for trainings of some hundred steps. The discriminator has no batch normalisation: shown and drawn
images come to it apart, and normalised apart they differ no more in brightness and contrast, so that the generator
stays gray for long. And the generator's last layer starts from larger weights, so that its first images have contrast.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

LATENT = 100
_STRIDES = 16


class Generator(nn.Module):
    """Latent vectors (N,latent), standard normal, to images (N,channels,size,size) float32 in [0,1].

    In training mode batch normalisation makes an image depend on the others of its batch. The weights are drawn from
    torch's global generator, which the caller seeds.
    """

    def __init__(self, *, channels: int, size: int, filters: int = 64, latent: int = LATENT) -> None:
        super().__init__()
        side = _side(size)
        widths = (8 * filters, 4 * filters, 2 * filters, filters)
        colours = nn.Conv2d(filters, channels, 1)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (latent, 1, 1)),
            nn.ConvTranspose2d(latent, widths[0], side // 8, bias=False),
        ]
        for before, after in pairwise(widths):
            layers += [
                nn.BatchNorm2d(before),
                nn.ReLU(inplace=True),
                nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
            ]
        layers += [nn.BatchNorm2d(filters), nn.ReLU(inplace=True), colours, nn.Tanh()]
        self.network = nn.Sequential(*layers)
        self._first = (side - size) // 2
        self._size = size
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):
                # 0.02, as Radford et al. have it at 64 filters: the sums over fewer are as large
                nn.init.normal_(module.weight, 0.0, 0.02 * math.sqrt(64 / filters))
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
        # larger than theirs: images have contrast from the start
        nn.init.normal_(colours.weight, 0.0, filters**-0.5)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        drawn = self.network(latents)
        rows = slice(self._first, self._first + self._size)
        images: torch.Tensor = (drawn[:, :, rows, rows] + 1) / 2
        return images


class Discriminator(nn.Module):
    """Images (N,channels,size,size) in [0,1] to logits (N,), above 0 where they look like shown ones.

    The weights are drawn from torch's global generator, which the caller seeds.
    """

    def __init__(self, *, channels: int, size: int, filters: int = 64) -> None:
        super().__init__()
        side = _side(size)
        widths = (filters, 2 * filters, 4 * filters, 8 * filters)
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *widths)):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        layers += [nn.Conv2d(widths[-1], 1, side // _STRIDES), nn.Flatten(0)]
        self.network = nn.Sequential(*layers)
        before = (side - size) // 2
        self._edges = (before, side - size - before) * 2
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                nn.init.zeros_(cast(torch.Tensor, module.bias))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(F.pad(2 * images - 1, self._edges, mode="replicate"))
        return logits


def discriminate(discriminator: nn.Module, shown: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """The discriminator's loss: mean of -log D(shown) plus mean of -log(1 - D(drawn)), each a separate batch."""
    right, wrong = discriminator(shown), discriminator(drawn.detach())
    return F.softplus(-right).mean() + F.softplus(wrong).mean()


def deceive(discriminator: nn.Module, drawn: torch.Tensor) -> torch.Tensor:
    """The generator's loss: mean of -log D(drawn), which does not fade where the discriminator is sure."""
    return F.softplus(-discriminator(drawn)).mean()


def _side(size: int) -> int:
    """The next multiple of 16."""
    if size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    return -(-size // _STRIDES) * _STRIDES
