"""Rows of growth: an ensemble's time and memory by its members, and a store's size by days of traffic."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import ClassVar

from report.fields import ResultError, known
from report.format import ratios

# times the time of the smallest ensemble, for one row
FLAT = 1.10
# MiB over the members' weights
MORE_MB = 50.0
# of a size of the middle day: a page that is split here and not there is no growth
SETTLED = 1.02

LIMITS, SOLUTIONS, BUDGETS, ALL = "rows taken", "spent solutions", "accounts' budgets", "all three"
SQLITE, REDIS = "SQLite", "Redis"


@dataclass(frozen=True)
class MemberGrowthRow:
    """EDM's answer in process from an ensemble of so many members; round n of all rows of an architecture is one round.

    row_ms_rounds: milliseconds of a call with one row, the median of each round; batch_ms_rounds: with `batch` rows.
    weights_mb: MiB of the members' graphs, as files. held_mb: MiB that a fresh process holds for them: over one with
    `undefended`, whose own weights are put back; None: not measured.
    """

    SCOPE: ClassVar = ("architecture",)

    architecture: str
    members: int
    threads: int
    batch: int
    row_ms_rounds: tuple[float, ...]
    batch_ms_rounds: tuple[float, ...]
    weights_mb: float
    held_mb: float | None

    def __post_init__(self) -> None:
        if not self.row_ms_rounds or len(self.row_ms_rounds) != len(self.batch_ms_rounds):
            raise ResultError("expected the time of one row and of a batch in every round")

    def row_times(self, least: MemberGrowthRow) -> list[float]:
        """One row's time over that of the ensemble `least`, round by round."""
        return ratios(self.row_ms_rounds, least.row_ms_rounds)

    def batch_times(self, least: MemberGrowthRow) -> list[float]:
        """The same of a batch."""
        return ratios(self.batch_ms_rounds, least.batch_ms_rounds)

    def flat(self, least: MemberGrowthRow) -> bool:
        """Whether one row takes as long as from the ensemble `least`."""
        return median(self.row_times(least)) <= FLAT

    @property
    def more_mb(self) -> float | None:
        """MiB that are held besides the members' weights."""
        return None if self.held_mb is None else self.held_mb - self.weights_mb

    @property
    def lean(self) -> bool | None:
        """Whether that is little."""
        return None if self.more_mb is None else self.more_mb <= MORE_MB


@dataclass(frozen=True)
class StoreGrowthRow:
    """How large a store is as days of traffic pass; MiB.

    kept: what is remembered. horizon_s: seconds after which it is forgotten. operations: how often the
    store was asked to remember something. most_entries: the most that were there
    when somebody counted; mb: at the end of each day; peak_mb: the most of all. bound_entries, bound_mb: the most that
    there can be of so many accounts, computed (bench/growth/stores.py). log_mb: of SQLite's log, which these leave out,
    the most at the end of a day; None: there is none.
    """

    SCOPE: ClassVar = ("store", "kept", "accounts")

    store: str
    kept: str
    accounts: int
    horizon_s: float
    operations: int
    most_entries: int
    bound_entries: int
    mb: tuple[float, ...]
    peak_mb: float
    bound_mb: float
    log_mb: float | None = None

    def __post_init__(self) -> None:
        known(self, store=(SQLITE, REDIS), kept=(LIMITS, SOLUTIONS, BUDGETS, ALL))
        if not self.mb or self.peak_mb < max(self.mb):
            raise ResultError(f"expected a size of each day and none above the peak, {self.peak_mb}, got {self.mb}")

    @property
    def bounded(self) -> bool:
        """Whether it stayed below what was computed, and did not grow in the second half of the days."""
        below = self.peak_mb <= self.bound_mb and self.most_entries <= self.bound_entries
        return below and self.mb[-1] <= SETTLED * self.mb[len(self.mb) // 2]
