"""The user's images: PATH/train and PATH/test, each with one folder of image files a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from zoo.images import DatasetError, convert, from_bytes

# where Pillow looks for an orientation that EXIF data do not state, as viewers do not
ELSEWHERE = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")


def imagefolder(
    path: Path, split: str, *, size: int | None, channels: int | None
) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Pixels float32 (N,C,S,S) in [0,1], labels int64 (N,) and class names of PATH/split, in sorted order.

    Class names are the sorted folders of PATH/train, for both splits, so that a class without test images
    shifts no label. Images are cropped to their central square and resized to `size`; without it they must all be
    alike. Colours are RGB unless channels is 1. Raises DatasetError.
    """
    from torchvision.datasets import folder  # here, because it takes seconds and the built-in sets need none of it

    if not (path / split).is_dir():
        raise DatasetError(f"{path / split}: no such folder; expected one folder of images a class in it")
    classes = _classes(path / "train") or _classes(path / split)
    strangers = [name for name in _classes(path / split) if name not in classes]
    if strangers:
        raise DatasetError(f"{path / split}: {', '.join(strangers)}: no such classes in {path / 'train'}")
    files: list[tuple[str, int]] = folder.make_dataset(
        str(path / split),
        {name: label for label, name in enumerate(classes)},
        extensions=folder.IMG_EXTENSIONS,
        allow_empty=True,
    )
    if not files:
        raise DatasetError(f"{path / split}: no image in the folders of {len(classes)} classes")
    rows = [_read(Path(file), size=size, channels=channels) for file, _ in files]
    for (file, _), row in zip(files, rows, strict=True):
        if row.shape != rows[0].shape:
            raise DatasetError(
                f"{file}: {row.shape[1]} pixels a side, but {files[0][0]} has {rows[0].shape[1]}; give a size"
            )
    return torch.stack(rows), torch.tensor([label for _, label in files]), tuple(classes)


def every_image(path: Path, *, size: int, channels: int) -> torch.Tensor:
    """Pixels float32 (N,C,S,S) in [0,1] of all image files below `path`, in sorted order, whatever folder they are in.

    Cut and resized as above. Raises DatasetError.
    """
    from torchvision.datasets import folder

    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in folder.IMG_EXTENSIONS and file.is_file())
    if not files:
        raise DatasetError(f"{path}: expected a folder of image files, found none ({', '.join(folder.IMG_EXTENSIONS)})")
    return torch.stack([_read(file, size=size, channels=channels) for file in files])


def _classes(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def _read(file: Path, *, size: int | None, channels: int | None) -> torch.Tensor:
    try:
        with Image.open(file) as opened:
            image = np.asarray(_upright(opened).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reports a broken PNG as a SyntaxError
        raise DatasetError(f"{file}: not a readable image: {error}") from error
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[None, top : top + side, left : left + side].copy()
    return convert(from_bytes(square), size=size, channels=channels)[0]


def _upright(image: Image.Image) -> Image.Image:
    """The picture as viewers show it, and as the server turns what it is asked about (handlers/essence.py)."""
    image.load()  # a PNG file may tell its orientation behind its pixels
    for other in ELSEWHERE:
        image.info.pop(other, None)
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data that cannot be read mean nothing
        return image
