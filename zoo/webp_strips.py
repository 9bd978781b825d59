"""CIFAR packed into lossless WebP.

NAME-SPLIT-labels.npy holds the labels; NAME-SPLIT-0.webps, -1 and so on hold the images in the same order.
Each part is WebP files one after the other, each a strip 32 pixels wide with its images from top to bottom.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zoo.images import DatasetError
from zoo.layout import Arrays, Bytes

SIDE = 32


@dataclass(frozen=True)
class WebpStrips:
    """The parts and labels of the data set called `name`."""

    name: str
    folder: str = "."

    def names(self, split: str) -> tuple[str, ...]:
        return f"{self.name}-{split}-0.webps", f"{self.name}-{split}-labels.npy"

    def read(self, folder: Path, split: str) -> Arrays | None:
        first, stored = (folder / name for name in self.names(split))
        if not (first.is_file() and stored.is_file()):
            return None
        try:
            labels = np.load(stored, allow_pickle=False).astype(np.int64)
        except (EOFError, OSError, ValueError) as error:
            raise DatasetError(f"{stored}: not an array of labels: {error}; replace the file") from error
        strips: list[Bytes] = []
        part = found = 0
        while not strips or found < labels.size:
            path = folder / f"{self.name}-{split}-{part}.webps"
            if not path.is_file():
                raise DatasetError(f"{path}: missing; the parts before it hold {found} of {labels.size} images")
            strips.extend(_strips(path))
            found = sum(map(len, strips))
            part += 1
        return np.concatenate(strips), labels


def _strips(path: Path) -> Iterator[Bytes]:
    """The strips (n,32,32,3) of one part. Bytes 4 to 8 of a WebP file give its length, less the first 8."""
    data = path.read_bytes()
    start = 0
    while start < len(data):
        stop = start + 8 + int.from_bytes(data[start + 4 : start + 8], "little")
        if data[start : start + 4] != b"RIFF" or stop > len(data):
            raise DatasetError(f"{path}: expected a whole WebP file at byte {start} of {len(data)}; replace the file")
        try:
            with Image.open(io.BytesIO(data[start:stop]), formats=("WEBP",)) as image:
                strip = np.asarray(image.convert("RGB"))
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: the WebP file at byte {start}: {error}; replace the file") from error
        height, width, _ = strip.shape
        if width != SIDE or height % SIDE:
            raise DatasetError(f"{path}: expected strips {SIDE} wide of square images, got {width} x {height}")
        yield strip.reshape(-1, SIDE, SIDE, 3)
        start = stop
