"""An unpacked archive in a process of its own: nothing is imported that a worker does without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from handlers import loading

if TYPE_CHECKING:  # torch comes with it
    from bench.inprocess import Call


@dataclass(frozen=True)
class Resident:
    """The archive in `folder`, for bench/memory.py."""

    folder: Path

    @contextmanager
    def answering(self) -> Iterator[Call]:
        """It at work, in this process."""
        pipeline = loading.load(self.folder)
        yield lambda images: pipeline(images).seconds
