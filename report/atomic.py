"""Files that are whole or not there: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write a file to, or to make a folder of. At the end it replaces `path`; what raises leaves
    `path` as it was and nothing else behind. The parent folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    _remove(unfinished)
    try:
        yield unfinished
        if unfinished.is_dir():
            _remove(path)
        unfinished.replace(path)
    finally:
        _remove(unfinished)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, "utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON (no NaN)."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
