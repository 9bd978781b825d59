"""The registry of architectures: images (N,C,S,S) float32 in [0,1] in, logits (N,K) out.

The first layer of every network normalises by its mean and standard deviation. They are buffers, so they
travel in every checkpoint and exported graph, and nothing outside a network rescales its input.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from zoo.conv3 import conv3
from zoo.fixed_point import FixedPoint
from zoo.hash_net import HashNet
from zoo.lenet5 import FIFTH, HALF, LENET5, lenet5
from zoo.stems import densenet121, mobilenetv2, resnet_8x
from zoo.wide_resnet import wide_resnet


class ArchitectureError(ValueError):
    """An architecture that is not in the registry, or that cannot be built as asked."""


class Normalise(nn.Module):
    """(images - mean) / std for each channel; images (N,C,H,W), mean and std buffers (1,C,1,1)."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


@dataclass(frozen=True)
class Architecture:
    """What there is to know of one entry of the registry.

    network: called with classes, channels, size and the options, gives the network behind the normalisation.
    about: where it comes from, and what it is used for here.
    smallest, largest: the sides S of the images it takes; None: no limit.
    options: the further keyword arguments of `build`, positive integers, with their defaults.
    """

    network: Callable[..., nn.Module]
    about: str
    smallest: int
    largest: int | None = None
    options: Mapping[str, int] = field(default_factory=dict)


ARCHITECTURES: Mapping[str, Architecture] = {
    "conv3": Architecture(
        conv3,
        "EDM's and SAME's MNIST network; width 1 has a quarter of the weights",
        14,
        options={"width": 2},
    ),
    "lenet5": Architecture(partial(lenet5, widths=LENET5), "MISLEADER's MNIST teacher and first member", 28, 32),
    "lenet5-half": Architecture(partial(lenet5, widths=HALF), "MISLEADER's second MNIST member", 28, 32),
    "lenet5-fifth": Architecture(partial(lenet5, widths=FIFTH), "MISLEADER's third MNIST member", 28, 32),
    "resnet18-8x": Architecture(partial(resnet_8x, depth=18), "the thieves' CIFAR clone", 8),
    "resnet34-8x": Architecture(
        partial(resnet_8x, depth=34),
        "MeCo's and MISLEADER's CIFAR victim",
        8,
    ),
    "wrn16-4": Architecture(partial(wide_resnet, depth=16, widening=4), "EDM's CIFAR victim", 8),
    "mobilenetv2": Architecture(mobilenetv2, "MeCo's and MISLEADER's second CIFAR clone and member", 8),
    "densenet121": Architecture(densenet121, "MeCo's and MISLEADER's third CIFAR clone and member", 16),
}


def build(
    architecture: str,
    *,
    classes: int,
    channels: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    projections: int = 0,
    **options: int,
) -> nn.Module:
    """A fresh network of the registry: images (N,channels,size,size) float32 in [0,1] to logits (N,classes).

    mean, std: one value a channel, of pixels in [0,1]; std above 0. options: those the registry's entry names.
    projections: from 1 on, the network is a HashNet of that many, which gives outputs by name and has its weights
    from a conversion or a checkpoint. The weights are drawn from torch's global generator, which the caller seeds.
    Raises ArchitectureError, and FixedPointError where the network cannot be a HashNet.
    """
    if architecture not in ARCHITECTURES:
        raise ArchitectureError(f"unknown architecture {architecture!r}; known: {', '.join(ARCHITECTURES)}")
    entry = ARCHITECTURES[architecture]
    chosen = {**entry.options, **options}
    faults = list(_faults(entry, classes=classes, channels=channels, size=size, mean=mean, std=std, options=chosen))
    if faults:
        raise ArchitectureError(f"{architecture}: {'; '.join(faults)}")
    network = entry.network(classes=classes, channels=channels, size=size, **chosen)
    whole = nn.Sequential(OrderedDict(normalise=Normalise(mean, std), network=network))
    return HashNet(FixedPoint(whole), projections) if projections else whole


def _faults(
    entry: Architecture,
    *,
    classes: int,
    channels: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    options: Mapping[str, int],
) -> Iterator[str]:
    for name, value, least in (("classes", classes, 2), ("channels", channels, 1), ("size", size, entry.smallest)):
        if value < least:
            yield f"{name}: expected at least {least}, got {value}"
    if entry.largest is not None and size > entry.largest:
        yield f"size: expected at most {entry.largest}, got {size}"
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            yield f"{name}: expected {channels} values, one a channel, got {values}"
    if not all(value > 0 for value in std):
        yield f"std: expected values above 0, got {std}"
    for name, value in options.items():
        if name not in entry.options:
            yield f"unknown option {name!r}; known: {', '.join(entry.options) or 'none'}"
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield f"{name}: expected a positive integer, got {value!r}"
