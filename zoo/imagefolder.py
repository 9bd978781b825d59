"""The user's images: a folder or a table (zoo/folders.py), decoded to one geometry and kept as bytes
(zoo/stored.py)."""

from __future__ import annotations

from pathlib import Path

import torch

from pictures.errors import PictureError
from pictures.files import opened
from pictures.model_input import ModelInput
from zoo.folders import Listing, below, listed
from zoo.images import DatasetError, Images, Size, sides
from zoo.stored import stored

# what is held out for tests where the owner has split nothing
SHARE = 0.2
# the share of files that may be broken
BROKEN = 0.01


def imagefolder(
    path: Path,
    split: str,
    *,
    size: Size | None = None,
    channels: int | None = None,
    wanted: ModelInput | None = None,
    share: float = SHARE,
    broken: float = BROKEN,
) -> Images:
    """The images of a split, uint8, with their labels and class names, those sorted.

    Class names are the folders of train/ for both splits, so that a class without test images shifts no label. wanted:
    the geometry, in place of size and channels; without any, images are RGB and must be alike. share: held out where
    the folder is not split. broken: the share of files that may be broken. Raises DatasetError.
    """
    listing = listed(path, split)
    if wanted is None:
        height, width = sides(size) if size is not None else _alike(listing)
        wanted = ModelInput((height, width), channels=3 if channels is None else channels)
    found = stored(listing, wanted, split=split, share=share, broken=broken)
    return Images("imagefolder", found.pixels, found.labels, listing.classes)


def every_image(path: Path, wanted: ModelInput, *, broken: float = BROKEN) -> torch.Tensor:
    """All image files below `path`, uint8 (N,C,H,W), whatever folder they are in. Raises DatasetError."""
    listing = Listing(tuple(below(path)), None, (), split_here=False)
    return stored(listing, wanted, split="all", share=0.0, broken=broken).pixels


def some(listing: Listing, count: int) -> Listing:
    """At most `count` files of a listing, evenly drawn from every class, the same at every call."""
    step = max(1.0, len(listing.files) / count)
    rows = [int(number * step) for number in range(min(count, len(listing.files)))]
    labels = None if listing.labels is None else tuple(listing.labels[row] for row in rows)
    return Listing(tuple(listing.files[row] for row in rows), labels, listing.classes, listing.split_here)


def _alike(listing: Listing) -> tuple[int, int]:
    """Height and width of all images, where they are the same. Raises DatasetError."""
    first, size = listing.files[0], None
    for file in listing.files:
        try:
            found = opened(file).size
        except PictureError:
            continue
        size = size or found
        if found is not None and size is not None and found != size:
            shown = [f"{width} x {height}" for height, width in (found, size)]
            raise DatasetError(f"{file}: {shown[0]} pixels, but {first} has {shown[1]}; give a size")
    if size is None:
        raise DatasetError(f"{first}: not a readable picture, and no other of {len(listing.files)} is")
    return size
