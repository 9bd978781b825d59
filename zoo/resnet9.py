"""ResNet-9: a residual network for small photographs that trains in minutes, also on a CPU.

Coleman et al., DAWNBench, 2017; the form is D. Page's, "How to train your ResNet", 2018: four convolutions, two of them
followed by a residual pair, pooled to one eighth, and logits an eighth of the last layer's, without which the first
steps are too long by far. width is the first convolution's filters, there 64; with 16 an epoch of CIFAR-10 takes a
minute on two cores.
"""

from __future__ import annotations

from torch import Tensor, nn


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Convolve, normalise, ReLU: (N,inputs,S,S) to (N,outputs,S,S)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two convolutions and a shortcut; (N,filters,S,S) to the same."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(_convolution(filters, filters), _convolution(filters, filters))

    def forward(self, images: Tensor) -> Tensor:
        residual: Tensor = self.residual(images)
        return images + residual


class Divided(nn.Module):
    """Divides by a constant."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, values: Tensor) -> Tensor:
        return values / self.by


def resnet9(*, classes: int, channels: int, size: int, width: int) -> nn.Sequential:
    """ResNet-9 on normalised images (N,C,S,S), to logits (N,K); width: filters of the first convolution."""
    return nn.Sequential(
        _convolution(channels, width),
        _convolution(width, 2 * width),
        nn.MaxPool2d(2),
        Residual(2 * width),
        _convolution(2 * width, 4 * width),
        nn.MaxPool2d(2),
        _convolution(4 * width, 8 * width),
        nn.MaxPool2d(2),
        Residual(8 * width),
        nn.MaxPool2d(size // 8),  # all that is left
        nn.Flatten(),
        nn.Linear(8 * width, classes),
        Divided(8.0),
    )
