"""What all formats of image files have in common: where the files lie, their names, how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
# images (N,H,W,C) and labels (N,)
Arrays: TypeAlias = tuple[Bytes, npt.NDArray[np.int64]]


class Layout(Protocol):
    """A way in which a data set's files lie under a root.

    folder: relative to the root. names: the files of a split, for messages. read: a split's images and labels
    in a folder; None where the files are not there; DatasetError with file and reason where one is damaged.
    """

    @property
    def folder(self) -> str: ...

    def names(self, split: str) -> tuple[str, ...]: ...

    def read(self, folder: Path, split: str) -> Arrays | None: ...
