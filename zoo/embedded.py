"""The sets that need no download: scikit-learn's digits, and crops of its two sample photographs.

They are read from the files that scikit-learn brings along. Asking `sklearn.datasets` for them would import half of
scikit-learn and of scipy: one to two seconds of processor time in every process that trains, attacks or asks.
"""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from zoo.images import convert, from_bytes

SIZE = 28
TEST_DIGITS = 500
CROPS = {"train": 6000, "test": 1000}
SCALES = (28, 40, 56, 80, 112)  # sides of the crops, in the photograph's pixels
TEST_ROWS = 128  # of the photograph's 427; the largest crop must fit
FLAT = 0.1  # least standard deviation of a crop before it is stretched


def digits(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's 1,797 digits of 8x8 pixels, resized: float32 (N,1,28,28) in [0,1] and int64 labels (N,).

    The test split is 500 digits at even distances in the list sorted by class, so it has its share of every
    class and, by the file's order, of every writer. The training split is the other 1,297.
    """
    table = np.loadtxt(_shipped("data/digits.csv.gz"), dtype=np.int64, delimiter=",")  # 64 pixels in 0..16, the class
    target = table[:, -1]
    order = np.argsort(target, kind="stable")
    test = order[np.floor((np.arange(TEST_DIGITS) + 0.5) * len(order) / TEST_DIGITS).astype(int)]
    rows = np.sort(test) if split == "test" else np.setdiff1d(np.arange(len(order)), test)
    pixels = torch.from_numpy(table[rows, :-1]).float().reshape(-1, 1, 8, 8) / 16
    return convert(pixels, size=SIZE, channels=None), torch.from_numpy(target[rows])


def crops(name: str, split: str) -> tuple[torch.Tensor, None]:
    """Gray crops of a photograph, 28 to 112 pixels a side, resized: float32 (N,1,28,28) in [0,1], no labels.

    Each crop is stretched to the full range of gray and may be mirrored; flat ones, such as sky, are left
    out. The 1,000 test crops come from the bottom of the photograph, the 6,000 training crops from the rest,
    so the splits share no pixel. Always the same crops in the same order.
    """
    photo = convert(from_bytes(photograph(name)[None]), size=None, channels=1)
    photo = photo[:, :, -TEST_ROWS:] if split == "test" else photo[:, :, :-TEST_ROWS]
    rng = np.random.default_rng(0)
    share = CROPS[split] // len(SCALES)
    drawn = torch.cat([_windows(photo, SIZE / side, share, rng) for side in SCALES])
    drawn = drawn[torch.from_numpy(rng.permutation(len(drawn)))]
    low, high = drawn.amin((2, 3), keepdim=True), drawn.amax((2, 3), keepdim=True)
    mirrored = torch.from_numpy(rng.random(len(drawn)) < 0.5).view(-1, 1, 1, 1)
    stretched = ((drawn - low) / (high - low)).clamp(0, 1)
    return torch.where(mirrored, stretched.flip(3), stretched), None


def photograph(name: str) -> np.ndarray:
    """One of scikit-learn's sample photographs, `china.jpg` or `flower.jpg`: uint8 (427,640,3)."""
    with Image.open(_shipped(f"images/{name}")) as image:
        return np.asarray(image)


def _shipped(name: str) -> Path:
    """A file of scikit-learn's datasets."""
    return Path(str(importlib.metadata.distribution("scikit-learn").locate_file(f"sklearn/datasets/{name}")))


def _windows(photo: torch.Tensor, zoom: float, count: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` different windows (count,1,28,28), none flat, of the photograph (1,1,H,W) zoomed by `zoom`."""
    height, width = (math.floor(side * zoom) for side in photo.shape[2:])
    zoomed = F.interpolate(photo, size=(height, width), mode="bilinear", antialias=True)
    mean, square = (F.avg_pool2d(zoomed**power, SIZE, stride=1)[0, 0] for power in (1, 2))
    rich = (square - mean**2 > FLAT**2).numpy()
    order = rng.permutation(rich.size)
    tops, lefts = np.divmod(order[rich.ravel()[order]][:count], rich.shape[1])
    return zoomed[0].unfold(1, SIZE, 1).unfold(2, SIZE, 1)[0, tops, lefts][:, None]
