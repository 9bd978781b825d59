"""Which graphs of a recipe are there already, so that one new network does not have all others exported again.

build/RECIPE/.made.json says of every graph's file which checkpoint it was made of, by which code and libraries, and
what its bytes were. Whatever differs from that, or is not in it, is made again: a graph of another checkpoint, one that
was damaged, one of an older exporter, and all of them where the list itself cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

NAME = ".made.json"
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "timm", "torchvision")
CHECKOUT = Path(__file__).resolve().parent.parent
# the code that decides what a checkpoint's graph is, and how it is checked
CODE = ("export/graphs.py", "export/redirection.py", "training/checkpoint.py", "zoo/*.py")


class Made:
    """The list of one folder of graphs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._listed = _read(self._path)

    def has(self, paths: Iterable[Path], checkpoint: str) -> bool:
        """Whether all these files are as they were made of the checkpoint with that digest."""
        return all(path.is_file() and self._listed.get(path.name) == _entry(path, checkpoint) for path in paths)

    def add(self, paths: Iterable[Path], checkpoint: str) -> None:
        """Files that were made now."""
        self._listed |= {path.name: _entry(path, checkpoint) for path in paths}
        temporary = self._path.with_name(f"{NAME}.{os.getpid()}")
        temporary.write_text(json.dumps(self._listed, indent=1, sort_keys=True), "utf-8")
        temporary.replace(self._path)


def _entry(path: Path, checkpoint: str) -> dict[str, str]:
    return {
        "checkpoint": checkpoint,
        "maker": maker(CODE),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


@cache
def maker(code: tuple[str, ...]) -> str:
    """The hash of the code and the libraries that make graphs. code: patterns of files."""
    state = hashlib.sha256()
    for library in LIBRARIES:
        state.update(f"{library} {metadata.version(library)}\n".encode())
    for path in sorted(path for pattern in code for path in CHECKOUT.glob(pattern)):
        content = path.read_bytes()
        state.update(f"{path.relative_to(CHECKOUT)} {len(content)}\n".encode() + content)
    return state.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        listed = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return listed if isinstance(listed, dict) else {}
