"""Networks of timm and torchvision as they are published: `timm:NAME` and `torchvision:NAME`, with their own stems.

The registry's own entries are the papers' networks for small images. These are for images of the size that their
authors meant them for, with any number of classes, and for weights that the user brings: a state dict of the library
fits by its names (zoo/pretrained.py). Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

import torch
from torch import nn

from zoo.images import Size, sides

LIBRARIES = ("timm", "torchvision")


class UnknownNetworkError(ValueError):
    """A name that the library does not have, or a network that cannot be built as asked."""


def is_published(name: str) -> bool:
    """Whether an architecture's name is a library's."""
    return name.partition(":")[0] in LIBRARIES


def known(name: str) -> bool:
    """Whether the library has the network; a library takes seconds to import."""
    library, _, network = name.partition(":")
    return network in _names(library)


def published(name: str, *, classes: int, channels: int, size: Size) -> nn.Module:
    """A fresh network on normalised images (N,C,H,W), to logits (N,K). Raises UnknownNetworkError."""
    library, _, network = name.partition(":")
    names = _names(library)
    if network not in names:
        close = get_close_matches(network, names, n=3)
        raise UnknownNetworkError(
            f"{library} has no network {network!r}{'; nearest: ' + ', '.join(close) if close else ''}"
        )
    try:
        return (
            _timm(network, classes, channels, size) if library == "timm" else _torchvision(network, classes, channels)
        )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UnknownNetworkError(
            f"{name}: cannot be built with {classes} classes and {channels} channels: {error}"
        ) from error


def pretrained_config(name: str) -> Mapping[str, Any]:
    """timm's `pretrained_cfg` of a network: mean, std, input_size, crop_pct, interpolation. Raises
    UnknownNetworkError."""
    import timm

    network = name.removeprefix("timm:")
    found = timm.get_pretrained_cfg(network) if network.partition(".")[0] in timm.list_models() else None
    if found is None:
        raise UnknownNetworkError(f"timm has no pretrained_cfg of {network!r}")
    return cast(Mapping[str, Any], found.to_dict())  # type: ignore[no-untyped-call]


def _names(library: str) -> list[str]:
    if library == "timm":
        import timm

        return timm.list_models()
    from torchvision import models

    return cast(list[str], models.list_models(module=models))


def _timm(network: str, classes: int, channels: int, size: Size) -> nn.Module:
    import timm

    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
    try:  # a transformer's positions belong to one size
        return timm.create_model(network, img_size=sides(size), **options)
    except TypeError:
        return timm.create_model(network, **options)


def _torchvision(network: str, classes: int, channels: int) -> nn.Module:
    from torchvision import models

    made = cast(nn.Module, models.get_model(network, num_classes=classes, weights=None))
    first = next((each for each in made.modules() if isinstance(each, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        raise ValueError(f"its first layer takes {first.in_channels} channels")
    if hasattr(made, "aux_logits"):  # a second answer in training that no loss here has a place for
        made.aux_logits = False  # type: ignore[assignment]
    return made


@torch.inference_mode()
def answers(network: nn.Module, channels: int, size: Size) -> int:
    """The classes that a network answers with, K of its (1,K) logits for one black image. Raises
    UnknownNetworkError."""
    network.eval()
    try:
        logits = network(torch.zeros(1, channels, *sides(size)))
    except RuntimeError as error:
        raise UnknownNetworkError(f"it does not take images of {channels} x {sides(size)}: {error}") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise UnknownNetworkError(f"expected one output (1,K), got {type(logits).__name__}")
    return logits.shape[1]
