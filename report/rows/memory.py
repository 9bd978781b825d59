"""Rows of memory: what a running server holds, process by process, and how large its environment is on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError, known

WAYS = ("imported", "deferred", "absent")
MOMENTS = ("rest", "traffic")


@dataclass(frozen=True)
class Held:
    """Megabytes (10^6 bytes) of one process, or the mean of several."""

    rss: float
    pss: float
    uss: float


@dataclass(frozen=True)
class MemoryRow:
    """One archive served in one way by `workers`, at one moment.

    way: whether workers have torch imported, have it and import nothing of it, or have none. graphs_mb: its graphs'
    files, weights above all. java: of the Java process; worker: mean of the workers; total_pss: of all the server's
    processes. start_s: how long a worker that was added took until it was ready. rows: answered before this moment.
    """

    SCOPE: ClassVar = ("archive", "way", "workers")

    archive: str
    way: str
    workers: int
    moment: str
    graphs_mb: float
    java: Held
    worker: Held
    total_pss: float
    start_s: float
    rows: int

    def __post_init__(self) -> None:
        known(self, way=WAYS, moment=MOMENTS)
        if self.total_pss < self.java.pss:
            raise ResultError(f"total_pss: expected at least Java's {self.java.pss}, got {self.total_pss}")


@dataclass(frozen=True)
class EnvironmentRow:
    """A Python environment on disk, in megabytes: all of it, and its largest packages' folders."""

    SCOPE: ClassVar = ("name",)

    name: str
    disk_mb: float
    packages: int
    largest: dict[str, float]
