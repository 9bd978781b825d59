"""The near-corpora thief: images of the same kind as the task's, none of them of the task.

Digits and letters drawn from fonts, other people's digits, another script: anyone who knows what a service classifies
finds such images, often with labels that mean the same. A gate that separates far images from near ones faces here the
nearest that cost nothing. Each image is asked about once, in random order.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from attacks import owned
from attacks.clone import Cloning
from attacks.owned import Labelled
from attacks.script import Script, ScriptedThief
from attacks.service import Service
from attacks.thief import check
from zoo import datasets

# a value that counts as ink, where images are put into a box
INK = 0.2


@dataclass(frozen=True)
class Near:
    """[attacks.near].

    corpora: data sets as zoo.datasets.load spells them; their training splits unless they pin another.
    labelled: those of the corpora whose labels are the task's: what the thief owns before its first query.
    boxed: those of the corpora whose images are put into the box where the task's images have their ink. box: its side
        as a share of the image's (5/7 for MNIST, 20 of 28 pixels), around the centre of mass.
    budget: images the thief may be charged for; fewer if the corpora hold fewer. rows: images in one request.
    """

    corpora: tuple[str, ...]
    budget: int
    rows: int = 64
    labelled: tuple[str, ...] = ()
    boxed: tuple[str, ...] = ()
    box: float = 5 / 7

    def __post_init__(self) -> None:
        check(self)
        if not self.corpora:
            raise ValueError("corpora: expected at least one data set, got none")
        for name, some in (("labelled", self.labelled), ("boxed", self.boxed)):
            if not set(some) <= set(self.corpora):
                raise ValueError(f"{name}: expected some of the corpora {', '.join(self.corpora)}, got {some}")
        if not 0 < self.box <= 1:
            raise ValueError(f"box: expected a share of the side above 0 and up to 1, got {self.box}")


def prepare(
    parameters: Near,
    service: Service,
    *,
    cloning: Cloning,
    seed: int,
    root: str | os.PathLike[str] | None = None,
) -> ScriptedThief:
    """The thief of a recipe, its images in the geometry of the service; `seed` owns their order, `root` holds data
    sets. `own` gives the images of the labelled corpora with those labels; None where there are none.

    cloning: not needed, since this thief learns nothing between queries.
    """
    everything, labelled = [], []
    for name in parameters.corpora:
        images = datasets.load(name, "train", root=root, size=service.size, channels=service.channels)
        pixels = boxed(images.pixels, parameters.box) if name in parameters.boxed else images.pixels
        everything.append(pixels)
        if name in parameters.labelled:
            labelled.append(Labelled(pixels, owned.task_labels(images, service)))
    pixels = torch.cat(everything)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    return ScriptedThief(_once(pixels[order]), own=owned.joined(labelled).as_transfer_set() if labelled else None)


def _once(images: torch.Tensor) -> Script:
    yield images


def boxed(images: torch.Tensor, share: float) -> torch.Tensor:
    """Light writing on a dark ground, moved and scaled so that the longer side of its ink is `share` of the image's and
    its centre of mass is in the middle: (N, C, S, S) in [0, 1] to the same. Images without ink stay as they are."""
    height, width = images.shape[2:]
    if height != width:
        raise ValueError(f"boxed: expected square images, got {height} x {width}")
    size = width
    gray = images.mean(dim=1)
    rows, columns = ((gray > INK).any(dim=axis) for axis in (2, 1))
    pixels = torch.arange(size).float()
    extents, middles = [], []
    for inked, mass in ((columns, gray.sum(dim=1)), (rows, gray.sum(dim=2))):
        first = torch.where(inked, pixels, torch.inf).amin(dim=1)
        last = torch.where(inked, pixels, -torch.inf).amax(dim=1)
        extents.append(last - first + 1)
        middles.append((mass * (pixels + 0.5)).sum(dim=1) / mass.sum(dim=1))
    zoom = torch.maximum(*extents) / (share * size)
    # affine_grid counts in half sides from the middle
    x, y = (2 * middle / size - 1 for middle in middles)
    zero = torch.zeros_like(zoom)
    theta = torch.stack([zoom, zero, x, zero, zoom, y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    placed = F.grid_sample(images, grid, mode="bicubic", align_corners=False).clamp(0, 1)
    return torch.where((gray > INK).any(dim=(1, 2))[:, None, None, None], placed, images)
