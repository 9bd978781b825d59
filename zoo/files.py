"""Where data sets lie on this machine: the roots, the search through them, the download into the first."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from zoo.images import DatasetError
from zoo.layout import Arrays, Layout

CHECKOUT = Path(__file__).resolve().parents[1]
VARIABLE = "TORCHWARDEN_DATA"
CONNECT_SECONDS = 30.0


@dataclass(frozen=True)
class DebianPackage:
    """A Debian package that installs a data set, and the folder it installs it into."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Files:
    """A data set of files.

    layout: how they lie under a root, as torchvision has it.
    torchvision: name of the class of torchvision.datasets that downloads them.
    debian: the package that installs them, in this layout.
    """

    layout: Layout
    torchvision: str
    debian: DebianPackage | None = None

    def read(self, name: str, split: str, root: str | os.PathLike[str] | None) -> Arrays:
        """The split's images and labels; files found nowhere on this machine are downloaded first.

        name: how errors call the data set. root: searched before all others. Raises DatasetError.
        """
        arrays = self._find(name, split, root)
        if arrays is not None:
            return arrays
        try:
            where = self._download(root)
        except (OSError, RuntimeError, HTTPException) as error:
            raise DatasetError(self._advice(name, split, root, error)) from error
        arrays = self._find(name, split, where)
        if arrays is None:
            raise DatasetError(f"{name}: torchvision downloaded it into {where}, but not its {split} split")
        return arrays

    def _find(self, name: str, split: str, root: str | os.PathLike[str] | None) -> Arrays | None:
        for folder in self._places(root):
            arrays = self.layout.read(folder, split)
            if arrays is not None:
                images, labels = arrays
                if labels.shape != (len(images),):
                    raise DatasetError(
                        f"{folder}: {name}: {len(images)} {split} images but labels of shape {labels.shape}"
                    )
                return arrays
        return None

    def _places(self, root: str | os.PathLike[str] | None) -> list[Path]:
        """The folders that may hold the files, in the order they are searched."""
        packaged = [] if self.debian is None else [self.debian.folder]
        return [each / self.layout.folder for each in roots(root)] + packaged

    def _download(self, root: str | os.PathLike[str] | None) -> Path:
        """Download with torchvision, which verifies checksums, and give the root it now lies in.

        Files are moved into place when all have arrived, so an interrupted download leaves nothing that looks
        whole.
        """
        from torchvision import datasets  # here, because it takes seconds and files at hand need none of it

        base = _writable(roots(root))
        with tempfile.TemporaryDirectory(dir=base, prefix=".download-") as temporary, _impatience():
            getattr(datasets, self.torchvision)(temporary, download=True)
            arrived = Path(temporary) / self.layout.folder
            target = base / self.layout.folder
            target.mkdir(parents=True, exist_ok=True)
            for file in arrived.iterdir():
                file.replace(target / file.name)
        return base

    def _advice(self, name: str, split: str, root: str | os.PathLike[str] | None, failure: Exception) -> str:
        folder = self.layout.folder
        places = ", ".join(dict.fromkeys(map(str, self._places(root))))
        wanted = " + ".join(self.layout.names(split))
        package = f", or install the Debian package {self.debian.name}" if self.debian else ""
        return (
            f"{name}: no {split} split on this machine: looked for {wanted} in {places}; "
            f"the download failed: {' '.join(str(failure).split())}. "
            f"Put the files into {roots(root)[0] / folder}, "
            f"or name the folder that holds {folder} in {VARIABLE}{package}"
        )


def roots(root: str | os.PathLike[str] | None) -> list[Path]:
    """The folders that may hold data sets, in the order they are searched.

    `root`, the folders of the environment variable TORCHWARDEN_DATA (separated as in PATH), and data/ in the checkout.
    """
    named = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]
    first = [] if root is None else [root]
    return [Path(folder) for folder in (*first, *named, CHECKOUT / "data")]


def _writable(folders: list[Path]) -> Path:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    raise PermissionError(f"none of {', '.join(map(str, folders))} can be written to")


@contextlib.contextmanager
def _impatience() -> Iterator[None]:
    """Give up on a silent network: torchvision itself waits for minutes where a firewall drops packets."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
