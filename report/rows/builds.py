"""Rows of one build of this product held against another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from report.fields import ResultError


@dataclass(frozen=True)
class BuildRow:
    """Raw rows that the undefended archive of a commit answers, one a request, on the server of that commit.

    commit: its hash. clients: that ask at once. Of each round, in which all builds take turns: p50_rounds, the median
    request's milliseconds; rate_rounds, rows a second.
    """

    SCOPE: ClassVar = ("commit", "clients")

    commit: str
    clients: int
    p50_rounds: tuple[float, ...]
    rate_rounds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.p50_rounds or len(self.p50_rounds) != len(self.rate_rounds):
            raise ResultError("expected a latency and a rate in every round")
