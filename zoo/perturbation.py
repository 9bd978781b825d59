"""Input perturbations h(x, eps): what a defense adds to an image before a classifier sees it.

MeCo, Wang et al., NeurIPS 2023, sec. 4.2: y = T(x + h(x, eps)), eps standard normal. A module here takes images
(N,C,H,W) float32 in [0,1] and noise (N, *noise_shape) float32 and gives x + h, which may leave [0,1]; eps is an input,
so that the server of the graph owns its randomness. No module draws anything, and in evaluation mode no row's
perturbation depends on the other rows.

    meco            the paper's: two residual blocks of a learned network
    gaussian        h = rms * eps, nothing learned: the ablation of the same size
    random-filters  what the paper's released code does instead: convolutions whose weights are the noise
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from zoo.images import Size, sides
from zoo.shrink import Shrink

# of tanh's output: below it the perturbation is smaller than asked for, so that no single pixel can carry all of it
FULL = 0.5
# so that an image's perturbation can be all zeros
TINY = 1e-6


class Perturbation(nn.Module):
    """What PERTURBATIONS makes. rms: root mean square of h over an image's pixels, in [0,1] pixel units."""

    noise_shape: tuple[int, ...]

    def __init__(self, rms: float) -> None:
        super().__init__()
        if not 0 < rms <= 1:
            raise ValueError(f"rms: expected above 0, at most 1, got {rms}")
        self.rms = rms

    def h(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The perturbation alone, (N,C,H,W)."""
        raise NotImplementedError

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return images + self.h(images, noise)


class Learned(Perturbation):
    """h = rms * u / max(RMS(u), 1/2), u = tanh(g(x, eps)): |h| <= 2 rms, RMS(h) <= rms, and = rms where RMS(u) >= 1/2.

    g: conv3x3 to `filters`, two residual blocks (BN, ReLU, conv3x3, twice), conv3x3 to C. The paper has 64 filters and
    does not define how eps enters: here as C channels next to the image's. shrunk: from 1 on, g sees a small copy of
    that side, and u is enlarged (bilinear), so that the cost does not grow with the image.
    """

    def __init__(self, *, channels: int, size: Size, rms: float, filters: int = 64, shrunk: int = 0) -> None:
        super().__init__(rms)
        if filters < 1:
            raise ValueError(f"filters: expected at least 1, got {filters}")
        self.noise_shape = (channels, *(sides(shrunk) if shrunk else sides(size)))
        self.size = sides(size)
        self.shrink = Shrink(size, shrunk) if shrunk else None
        self.stem = nn.Conv2d(2 * channels, filters, 3, padding=1)
        self.blocks = nn.ModuleList(_block(filters) for _ in range(2))
        self.head = nn.Conv2d(filters, channels, 3, padding=1)

    def h(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        seen = images if self.shrink is None else self.shrink(images)
        hidden = self.stem(torch.cat([2 * seen - 1, noise], dim=1))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        u = self.head(hidden).tanh()
        if self.shrink is not None:
            u = F.interpolate(u, size=self.size, mode="bilinear")
        h: torch.Tensor = self.rms * u / root_mean_square(u).clamp(min=FULL)
        return h


class Gaussian(Perturbation):
    """h = rms * eps / RMS(eps): no parameters."""

    def __init__(self, *, channels: int, size: Size, rms: float) -> None:
        super().__init__(rms)
        self.noise_shape = (channels, *sides(size))

    def h(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        h: torch.Tensor = self.rms * noise / root_mean_square(noise)
        return h


class RandomFilters(Perturbation):
    """The released code's network, weights drawn for each image: two blocks of conv1x1 (C to 2), conv3x3 of dilation 2
    (2 to 2), conv1x1 (2 to C), each followed by normalisation over the image's pixels, ReLU between. No parameters.

    Its amplitude is drawn for a whole batch there; here every image has the same, so that it can be compared.
    """

    HIDDEN = 2
    BLOCKS = 2

    def __init__(self, *, channels: int, size: Size, rms: float) -> None:
        super().__init__(rms)
        del size  # its filters take any
        hidden = self.HIDDEN
        self.shapes = [(hidden, channels, 1), (hidden, hidden, 9), (channels, hidden, 1)] * self.BLOCKS
        self.noise_shape = (sum(out * into * taps for out, into, taps in self.shapes),)

    def h(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        weights = noise.split([out * into * taps for out, into, taps in self.shapes], dim=1)
        hidden = images
        for number, (weight, shape) in enumerate(zip(weights, self.shapes, strict=True)):
            hidden = _standardised(_filtered(hidden, weight.unflatten(1, shape), taps=shape[2]))
            if number % 3 < 2:
                hidden = hidden.relu()
        return self.rms * hidden


def root_mean_square(images: torch.Tensor) -> torch.Tensor:
    """Over each image: (N,C,S,S) to (N,1,1,1), TINY at least: a square root has no slope at 0."""
    return images.square().mean((1, 2, 3), keepdim=True).clamp(min=TINY**2).sqrt()


def _block(filters: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(filters),
        nn.ReLU(),
        nn.Conv2d(filters, filters, 3, padding=1, bias=False),
        nn.BatchNorm2d(filters),
        nn.ReLU(),
        nn.Conv2d(filters, filters, 3, padding=1),
    )


def _filtered(images: torch.Tensor, weight: torch.Tensor, *, taps: int) -> torch.Tensor:
    """Each image through separate filters: (N,I,S,S) and (N,O,I,taps), 1 or the 9 of dilation 2, to (N,O,S,S)."""
    if taps == 1:
        return torch.einsum("nihw,noi->nohw", images, weight[..., 0])
    height, width = images.shape[2:]
    padded = F.pad(images, (2, 2, 2, 2))
    shifted = [padded[:, :, 2 * row : 2 * row + height, 2 * column : 2 * column + width] for row, column in _NINE]
    return torch.einsum("nithw,noit->nohw", torch.stack(shifted, dim=2), weight)


_NINE = [(row, column) for row in range(3) for column in range(3)]


def _standardised(images: torch.Tensor) -> torch.Tensor:
    """Mean 0 and deviation 1 over the pixels of each channel of each image."""
    centred = images - images.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True) + TINY).sqrt()


PERTURBATIONS: Mapping[str, Callable[..., Perturbation]] = {
    "meco": Learned,
    "gaussian": Gaussian,
    "random-filters": RandomFilters,
}


def perturbation(kind: str, **arguments: Any) -> Perturbation:
    """A fresh module of PERTURBATIONS; weights come from torch's global generator. Raises ValueError."""
    if kind not in PERTURBATIONS:
        raise ValueError(f"unknown perturbation {kind!r}; expected one of {', '.join(PERTURBATIONS)}")
    return PERTURBATIONS[kind](**arguments)
