r"""A small copy of an image, made inside a graph: what a gate, a hash or a member looks at need not grow with the
image.

Each pixel of the copy is the mean over the box of the image that it covers (area interpolation), first along columns,
then along rows:

    x' = R x C^T,   R (S,H) and C (S,W), the share of each pixel that lies in each box

The shares are whole multiples of 2^-7 that sum to 1, so that on pixels of 8 bits the sums are whole numbers below 2^22,
which float32 holds exactly: the copy is then the same, bit for bit, whatever runs the graph (zoo/fixed_point.py has why
a hash needs that).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from zoo.images import Size, sides

# a share's unit is 1 / ONE
ONE = 2**7
LARGEST = 255
QUARTER = 0.25


class Shrink(nn.Module):
    """Images (N,C,H,W) float32 in [0,1] to (N,C,side,side) float32 in [0,1].

    size: of the images; no side of theirs is below `side`. whole: round to 8 bits before and after, for a copy that is
    exact and has no gradient. Raises ValueError.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, size: Size, side: int, *, whole: bool = False) -> None:
        super().__init__()
        height, width = sides(size)
        if not 1 <= side <= min(height, width):
            raise ValueError(f"side of the small copy: expected 1 to {min(height, width)}, got {side}")
        self.whole = whole
        # they follow from the sizes, so no checkpoint holds them
        self.register_buffer("rows", shares(height, side), persistent=False)
        self.register_buffer("columns", shares(width, side).T.contiguous(), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.whole:
            return (self.rows / ONE) @ images @ (self.columns / ONE)
        sums = self.rows @ torch.round(images * LARGEST) @ self.columns
        # the quarter keeps what is rounded off the ties
        copy: torch.Tensor = torch.round((sums + QUARTER) / ONE**2) / LARGEST
        return copy


def copier(size: Size, side: int) -> nn.Module:
    """What makes the exact copy of images (N,C,H,W) float32 that a network of that side looks at: themselves, where
    they are of it already."""
    return nn.Identity() if sides(size) == (side, side) else Shrink(size, side, whole=True)


def shares(pixels: int, side: int) -> torch.Tensor:
    """How much of each of `pixels` lies in each of `side` boxes, float32 (side, pixels): whole numbers, sums are
    ONE."""
    edges = np.arange(side + 1) * (pixels / side)
    left, right = np.arange(pixels)[None], np.arange(1, pixels + 1)[None]
    covered = np.clip(np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left), 0, None)
    exact = covered * (ONE * side / pixels)
    whole = np.floor(exact)
    # what rounding down has taken goes to the largest remainders
    for box in range(side):
        missing = round(ONE - whole[box].sum())
        whole[box, np.argsort(whole[box] - exact[box], kind="stable")[:missing]] += 1
    return torch.from_numpy(whole.astype(np.float32))
