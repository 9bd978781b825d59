"""The set of images that all packages share, and the changes of geometry between sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

# ITU-R BT.601, the weights of JPEG and of Pillow's "L" mode
LUMA = (0.299, 0.587, 0.114)


class DatasetError(ValueError):
    """A data set that is unknown, absent, damaged, or not available in the form asked for."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images with their labels.

    name: the data set's name in the registry.
    pixels: float32 (N,C,H,W) in [0,1], contiguous.
    labels: int64 (N,), positions in `classes`; None where the images have no labels.
    classes: class names; empty where the images have no labels.
    """

    name: str
    pixels: torch.Tensor
    labels: torch.Tensor | None
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != torch.float32:
            raise ValueError(
                f"{self.name}: pixels: expected float32 (N,C,H,W), got {self.pixels.dtype} {tuple(self.pixels.shape)}"
            )
        if self.labels is None:
            return
        if self.labels.dtype != torch.int64 or self.labels.shape != (len(self),):
            raise ValueError(
                f"{self.name}: labels: expected int64 ({len(self)},), "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.pixels)


def from_bytes(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 images (N,H,W,C) as float32 (N,C,H,W) in [0,1]: each value the float32 nearest to byte / 255."""
    channels_first = np.array(images.transpose(0, 3, 1, 2), order="C")
    return torch.from_numpy(channels_first).float().div_(255)


def convert(pixels: torch.Tensor, *, size: int | None, channels: int | None) -> torch.Tensor:
    """Pixels (N,C,H,W) in [0,1] as (N,channels,size,size) in [0,1]; None keeps what is there.

    Bilinear with antialiasing; RGB becomes gray by its luma, gray RGB by repetition. Raises DatasetError.
    """
    if channels not in (None, 1, 3):
        raise DatasetError(f"channels: expected 1 or 3, got {channels}")
    if size is not None and size < 1:
        raise DatasetError(f"size: expected at least 1, got {size}")
    converted = pixels
    if channels == 1 and converted.shape[1] == 3:
        converted = (converted * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    if size is not None and converted.shape[2:] != (size, size):
        converted = F.interpolate(converted, size=(size, size), mode="bilinear", antialias=True)
    if channels == 3 and converted.shape[1] == 1:
        converted = converted.repeat(1, 3, 1, 1)
    # the weights of a mean may add up to a little over 1
    return pixels if converted is pixels else converted.clamp(0, 1)
