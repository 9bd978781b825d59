"""Rows of the attacks' own speed and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError


@dataclass(frozen=True)
class AttackSpeedRow:
    """What one attack costs its attacker in process, on `threads` threads of torch.

    clone: the architecture that learns. queries: over which was measured, after `warm_up` that were not. seconds: of
    them, learning included, and cpu_seconds of all the process's threads. grown_mb: resident memory at the end less
    that after the warm-up. epoch_seconds: of one epoch of a clone's training on the answers, for attacks that end with
    a transfer set.
    """

    SCOPE: ClassVar = ("recipe", "attack")

    recipe: str
    policy: str
    attack: str
    clone: str
    threads: int
    warm_up: int
    queries: int
    seconds: float
    cpu_seconds: float
    grown_mb: float
    epoch_seconds: float | None

    def __post_init__(self) -> None:
        if self.queries < 1 or self.seconds <= 0:
            raise ResultError(f"queries, seconds: expected above 0, got {self.queries}, {self.seconds}")

    @property
    def queries_per_s(self) -> float:
        """Of the whole loop."""
        return self.queries / self.seconds

    @property
    def of_an_epoch(self) -> float | None:
        """Seconds of querying as a multiple of those of one epoch of training."""
        return None if self.epoch_seconds is None else self.seconds / self.epoch_seconds

    def __str__(self) -> str:
        epoch = "" if self.of_an_epoch is None else f", {self.of_an_epoch:.2f} of an epoch of training"
        return (
            f"{self.attack:<10} {self.queries} queries, {self.queries_per_s:.0f}/s "
            f"({1000 * self.cpu_seconds / self.queries:.3f} ms CPU each){epoch}, memory {self.grown_mb:+.1f} MB"
        )
