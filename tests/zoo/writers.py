"""Writers of small data sets in every layout."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np

from zoo.layout import Bytes


def some_bytes(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def idx_bytes(values: Bytes) -> bytes:
    lengths = np.array(values.shape, ">u4").tobytes()
    return bytes((0, 0, 8, values.ndim)) + lengths + values.tobytes()


def write_idx(
    folder: Path,
    split: str,
    images: Bytes,
    labels: Bytes,
    *,
    zipped: bool = True,
) -> list[Path]:
    """Images (N,28,28) and labels (N,) under MNIST's file names; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "train" if split == "train" else "t10k"
    paths = []
    for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(idx_bytes(values)) if zipped else idx_bytes(values))
        paths.append(path)
    return paths


def write_cifar_batch(path: Path, images: Bytes, labels: list[int], *, key: str = "labels") -> None:
    """Images (N,32,32,3) as one batch of CIFAR's python version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)
    path.write_bytes(pickle.dumps({"data": rows, key: labels, "batch_label": "one"}, protocol=2))
