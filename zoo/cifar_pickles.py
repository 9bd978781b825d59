"""CIFAR's "python version": batches that Python 2 pickled, read without letting a file run code.

A pickle may call anything it can name. This reader knows the few names in a pickled numpy array, gives them stand-ins
that only store their arguments, and refuses all others.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.images import DatasetError
from zoo.layout import Arrays, Bytes


@dataclass(frozen=True)
class CifarPickles:
    """Batches of rows of 3,072 bytes in the order C, H, W.

    train, test: the files of each split. labels: the batch's entry that holds the labels.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: str

    def names(self, split: str) -> tuple[str, ...]:
        return self.train if split == "train" else self.test

    def read(self, folder: Path, split: str) -> Arrays | None:
        paths = [folder / name for name in self.names(split)]
        if not all(path.is_file() for path in paths):
            return None
        images, labels = zip(*map(self._batch, paths), strict=True)
        return np.concatenate(images), np.concatenate(labels)

    def _batch(self, path: Path) -> Arrays:
        try:
            with path.open("rb") as file:
                batch = _ArrayUnpickler(file, encoding="latin1").load()
            rows = batch["data"].values().reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            return rows, np.array(batch[self.labels], np.int64)
        except Exception as error:  # a damaged pickle may raise anything
            raise DatasetError(f"{path}: not a CIFAR batch: {error!r}; replace the file") from error


class _PickledArray:
    """Stands in for a numpy array."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def values(self) -> Bytes:
        _, shape, kind, fortran, raw = self.state
        if kind.code != "u1" or fortran:
            raise ValueError(f"expected unsigned bytes in C order, got {kind.code!r}, Fortran order: {fortran}")
        # a Python 2 string comes as text, one character a byte
        return np.frombuffer(_encode(raw) if isinstance(raw, str) else raw, np.uint8).reshape(shape)


class _PickledType:
    """Stands in for a numpy dtype."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment, which single bytes do not have."""


def _encode(text: str, *_: object) -> bytes:
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,  # numpy 2
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes for Python 2
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Callable[..., object]:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _STAND_INS[module, name]
