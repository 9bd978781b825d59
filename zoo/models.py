"""The registry of architectures: images (N,C,H,W) float32 in [0,1] in, logits (N,K) out.

The first layer of every network normalises by its mean and standard deviation. They are buffers, so they
travel in every checkpoint and exported graph, and nothing outside a network rescales its input. A network may look at a
small copy of the image instead, which comes before that (zoo/shrink.py). The registry's networks are the papers', for
small square images; `timm:NAME` and `torchvision:NAME` are published ones (zoo/published.py).
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
from zoo.images import Size, sides
from zoo.lenet5 import FIFTH, HALF, LENET5, lenet5
from zoo.published import UnknownNetworkError, is_published, published
from zoo.resnet9 import resnet9
from zoo.shrink import Shrink
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
    "resnet9": Architecture(resnet9, "a CIFAR victim that two cores train in minutes", 8, options={"width": 16}),
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


def named(architecture: str) -> str:
    """The name, which is the registry's or a library's. Raises ArchitectureError with the known ones."""
    if architecture not in ARCHITECTURES and not is_published(architecture):
        known = ", ".join(ARCHITECTURES)
        raise ArchitectureError(
            f"unknown architecture {architecture!r}; known: {known}, and timm:NAME and torchvision:NAME"
        )
    return architecture


def build(
    architecture: str,
    *,
    classes: int,
    channels: int,
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    projections: int = 0,
    shrunk: int = 0,
    **options: int,
) -> nn.Module:
    """A fresh network of that name: images (N,channels,height,width) float32 in [0,1] to logits (N,classes).

    mean, std: one value a channel, of pixels in [0,1]; std above 0. options: those the registry's entry names.
    projections: from 1 on, the network is a HashNet of that many, which gives outputs by name and has its weights
    from a conversion or a checkpoint. shrunk: from 1 on, the side of the small copy that the network looks at.
    The weights are drawn from torch's global generator, which the caller seeds.
    Raises ArchitectureError, and FixedPointError where the network cannot be a HashNet.
    """
    entry = ARCHITECTURES.get(named(architecture))
    chosen = {**(entry.options if entry else {}), **options}
    seen: Size = shrunk or size
    faults = [
        *_faults(classes=classes, channels=channels, size=size, mean=mean, std=std, shrunk=shrunk),
        *_unfit(entry, seen, chosen),
    ]
    if faults:
        raise ArchitectureError(f"{architecture}: {'; '.join(faults)}")
    try:
        if entry is None:
            network = published(architecture, classes=classes, channels=channels, size=seen)
        else:
            network = entry.network(classes=classes, channels=channels, size=sides(seen)[0], **chosen)
    except UnknownNetworkError as error:
        raise ArchitectureError(str(error)) from error
    plain = OrderedDict(normalise=Normalise(mean, std), network=network)
    if projections:
        fixed = FixedPoint(nn.Sequential(plain))
        return HashNet(fixed, projections, Shrink(size, shrunk, whole=True) if shrunk else None)
    return nn.Sequential(OrderedDict(shrink=Shrink(size, shrunk), **plain) if shrunk else plain)


def _faults(
    *, classes: int, channels: int, size: Size, mean: Sequence[float], std: Sequence[float], shrunk: int
) -> Iterator[str]:
    """What is wrong with any network's arguments."""
    for name, value, least in (("classes", classes, 2), ("channels", channels, 1), ("size", min(sides(size)), 1)):
        if value < least:
            yield f"{name}: expected at least {least}, got {value}"
    if not 0 <= shrunk <= min(sides(size)):
        yield f"shrunk: expected at most the image's shorter side, {min(sides(size))}, got {shrunk}"
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            yield f"{name}: expected {channels} values, one a channel, got {values}"
    if not all(value > 0 for value in std):
        yield f"std: expected values above 0, got {std}"


def _unfit(entry: Architecture | None, size: Size, options: Mapping[str, int]) -> Iterator[str]:
    """What of the arguments the entry has no place for; None: a published network."""
    known = entry.options if entry else {}
    for name, value in options.items():
        if name not in known:
            yield f"unknown option {name!r}; known: {', '.join(known) or 'none'}"
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            yield f"{name}: expected a positive integer, got {value!r}"
    if entry is None:
        return
    height, width = sides(size)
    if height != width:
        yield f"size: expected square images, got {height} x {width}; take a small copy (shrunk), or a timm: network"
    elif height < entry.smallest:
        yield f"size: expected at least {entry.smallest}, got {height}"
    elif entry.largest is not None and height > entry.largest:
        yield f"size: expected at most {entry.largest}, got {height}"
