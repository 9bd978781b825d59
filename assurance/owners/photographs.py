"""Photographs that are asked about: crops of scikit-learn's two, some of them upside down."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from bench.adopted import photographs

QUALITY = 92


def labelled(folder: Path, count: int, *, seed: int) -> Path:
    """A folder for each class."""
    return folder if folder.exists() else photographs.write(folder, count, seed=seed)


def turned(folder: Path, source: Path) -> Path:
    """One folder, without labels, of another's photographs, every other of them upside down."""
    if not folder.exists():
        folder.mkdir()
        for row, file in enumerate(sorted(source.glob("*/*.jpg"))):
            with Image.open(file) as photograph:
                upright = photograph.convert("RGB")
            lying = upright.transpose(Image.Transpose.ROTATE_180) if row % 2 else upright
            lying.save(folder / f"{row:04d}.jpg", quality=QUALITY)
    return folder
