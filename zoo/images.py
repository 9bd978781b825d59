"""The set of images that all packages share, and the changes of geometry between sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from zoo.maps import was_read

# ITU-R BT.601, the weights of JPEG and of Pillow's "L" mode
LUMA = (0.299, 0.587, 0.114)


# float32 bytes that are handed to a network at once
PART = 2**25

Size: TypeAlias = int | Sequence[int]
"""Of images: the side of square ones, or height and width."""


class DatasetError(ValueError):
    """A data set that is unknown, absent, damaged, or not available in the form asked for."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels.

    name: the data set's name in the registry.
    stored: float32 (N,C,H,W) in [0,1], contiguous; or uint8, in a memory map where the images are the user's: what
        reads many of those takes them in parts, through `unit`.
    labels: int64 (N,), positions in `classes`; None where the images have no labels.
    classes: class names; empty where the images have no labels.
    """

    name: str
    stored: torch.Tensor
    labels: torch.Tensor | None
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.stored.ndim != 4 or self.stored.dtype not in (torch.float32, torch.uint8):
            raise ValueError(
                f"{self.name}: pixels: expected float32 or uint8 (N,C,H,W), "
                f"got {self.stored.dtype} {tuple(self.stored.shape)}"
            )
        if self.labels is None:
            return
        if self.labels.dtype != torch.int64 or self.labels.shape != (len(self),):
            raise ValueError(
                f"{self.name}: labels: expected int64 ({len(self)},), "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.stored)

    @cached_property
    def pixels(self) -> torch.Tensor:
        """All of them, float32 (N,C,H,W) in [0,1]."""
        return unit(self.stored)


def unit(images: torch.Tensor) -> torch.Tensor:
    """Images as networks take them, float32 in [0,1]: uint8 ones are byte / 255, others as they are."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def parts(images: torch.Tensor, *, most: int = 512, device: torch.device | None = None) -> Iterator[torch.Tensor]:
    """Images (N,C,H,W) in order, float32 in [0,1], in parts of at most `most` rows and PART bytes, on `device`; what
    was read of a map does not stay resident."""
    rows = max(1, min(most, PART // (4 * images[0].numel()))) if len(images) else 1
    for part in images.split(rows):
        shown = unit(part if device is None else part.to(device))
        was_read(images, part.numel())
        yield shown


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def size_of(images: torch.Tensor) -> int | tuple[int, int]:
    """Of images (N,C,H,W): the side where they are square, else height and width."""
    height, width = images.shape[2:]
    return height if height == width else (height, width)


def from_bytes(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 images (N,H,W,C) as float32 (N,C,H,W) in [0,1]: each value the float32 nearest to byte / 255."""
    channels_first = np.array(images.transpose(0, 3, 1, 2), order="C")
    return torch.from_numpy(channels_first).float().div_(255)


def convert(pixels: torch.Tensor, *, size: Size | None, channels: int | None) -> torch.Tensor:
    """Pixels (N,C,H,W) in [0,1] as (N,channels,height,width) in [0,1]; None keeps what is there.

    Bilinear with antialiasing; RGB becomes gray by its luma, gray RGB by repetition. Raises DatasetError.
    """
    if channels not in (None, 1, 3):
        raise DatasetError(f"channels: expected 1 or 3, got {channels}")
    if size is not None and min(sides(size)) < 1:
        raise DatasetError(f"size: expected at least 1, got {size}")
    converted = pixels
    if channels == 1 and converted.shape[1] == 3:
        converted = (converted * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    if size is not None and converted.shape[2:] != sides(size):
        converted = F.interpolate(converted, size=sides(size), mode="bilinear", antialias=True)
    if channels == 3 and converted.shape[1] == 1:
        converted = converted.repeat(1, 3, 1, 1)
    # the weights of a mean may add up to a little over 1
    return pixels if converted is pixels else converted.clamp_(0, 1)
