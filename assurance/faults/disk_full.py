"""A full disk: the store, the audit log and TorchServe's own log have no space left, and the service goes on.

The instance's folder lies on its own small file system (a tmpfs, which only root may mount), and a file fills the rest
of it. The checks are those of store_full.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from assurance.faults.scene import Scene
from assurance.faults.store_full import Space, watch
from report.rows.faults import FaultRow

SIZE = "192m"
BLOCK = 2**20


def measure(scene: Scene, folder: Path, model: str, neighbours: tuple[str, ...], *, run: int) -> FaultRow:
    """Fill the file system at `folder`, on which the instance runs, under load, and empty it again."""
    with contextlib.closing(Ballast(folder / "ballast")) as ballast:
        return watch(scene, model, neighbours, ballast, fault="disk_full", case="a file system of its own", run=run)


class Ballast(Space):
    """A file that takes all the space there is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            for size in (BLOCK, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def give(self) -> None:
        self._path.unlink()

    def close(self) -> None:
        """Give the space back, if it was not yet."""
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[bool]:
    """A small file system at `folder`, which is made; False where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        yield False
        return
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "torchwarden", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        yield False  # root of a container without the right to
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(folder)], check=True)
