"""IDX, the format of MNIST and its relatives: a header of big-endian lengths, then the values.

The header is 0, 0, a type code (8: unsigned bytes), the number of dimensions, and four bytes a dimension.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.images import DatasetError
from zoo.layout import Arrays, Bytes


@dataclass(frozen=True)
class Idx:
    """Four IDX files, images and labels of each split, under MNIST's names, gzipped or not."""

    folder: str

    def names(self, split: str) -> tuple[str, ...]:
        prefix = "train" if split == "train" else "t10k"
        return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"

    def read(self, folder: Path, split: str) -> Arrays | None:
        images, labels = (_plain_or_gzipped(folder / name) for name in self.names(split))
        if images is None or labels is None:
            return None
        return _read(images, rank=3)[..., None], _read(labels, rank=1).astype(np.int64)


def _plain_or_gzipped(path: Path) -> Path | None:
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)


def _read(path: Path, *, rank: int) -> Bytes:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise DatasetError(f"{path}: cannot be unpacked: {error}; replace the file") from error
    header = 4 + 4 * rank
    if data[:4] != bytes((0, 0, 8, rank)) or len(data) < header:
        raise DatasetError(
            f"{path}: expected IDX bytes in {rank} dimensions, the file starts with {data[:4]!r}; replace it"
        )
    shape = tuple(int(length) for length in np.frombuffer(data, ">u4", count=rank, offset=4))
    if len(data) - header != math.prod(shape):
        raise DatasetError(
            f"{path}: expected {math.prod(shape)} bytes after the header for shape {shape}, "
            f"got {len(data) - header}; replace the file"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
