"""How many rows one principal, and all principals together, may ask in a window of seconds.

A window is counted in S slots of window / S seconds, k = floor(t / slot). A request of n rows at time t is taken if

    n + sum of the rows taken in slots k - S .. k  <=  most

Any interval as long as the window touches at most S + 1 slots, so none ever holds more than `most` rows; a token bucket
or a fixed window lets twice as many through. The price is that a row is remembered up to one slot longer than the
window. A full account has room when its oldest slots leave the sum: slot q does at (q + S + 1) window / S.

What cannot be read costs work too: a bad row, and a request that holds nothing else, count as `bad_rows` rows each.

The principal is the client that an authenticating gateway names in a header; requests without it share one account.
Rows are counted by recipe, because policies of one recipe guard the same classifier.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from defenses import ranges
from defenses.memory import Account, Charge, Meter, Reached

SLOTS = 12
SHARED = "-"  # the principal of requests that name none
PRINCIPAL, TOTAL = "principal", "total"
_NAMED = re.compile(r"[A-Za-z0-9._@:-]{1,64}")


@dataclass(frozen=True)
class Limits:
    """The `limits` table of a policy. rows: of one principal in a window; total: of all together, or None; window:
    seconds; bad_rows: how many rows one that cannot be read counts for, 0 for none."""

    rows: int
    total: int | None = None
    window: float = 60.0
    bad_rows: int = 1

    def __post_init__(self) -> None:
        ranges.integer("rows", self.rows, 1, 10**12)
        if self.total is not None:
            ranges.integer("total", self.total, self.rows, 10**15)
        ranges.between("window", self.window, 1, 10**7)
        ranges.integer("bad_rows", self.bad_rows, 0, 1000)


class Full(NamedTuple):
    """A limit that is reached: which, "principal" or "total", and whole seconds until it is worth another try."""

    limit: str
    seconds: int


class Limiter:
    """Counts rows and reports when a limit is reached. recipe: whose classifier is asked. meter: counts for all
    processes that serve."""

    def __init__(self, limits: Limits, *, recipe: str, meter: Meter) -> None:
        self._limits = limits
        self._scope = f"{recipe}/{limits.window:g}"
        self._meter = meter

    def full(self, principals: Sequence[str]) -> list[Full | None]:
        """Of each principal the limit that leaves no room for a single row, so that its request need not be read;
        nothing is counted. Raises StoreError."""
        askers = {principal: self._accounts(principal) for principal in principals}
        reached = dict(zip(askers, self._meter.full(list(askers.values()), self._limits.window), strict=True))
        return [self._full(askers[principal], reached[principal]) for principal in principals]

    def charge(self, good: int, bad: int) -> int:
        """The rows that a request of so many good and bad ones counts for."""
        return good + bad * self._limits.bad_rows

    def take(self, requests: Sequence[tuple[str, int]]) -> list[Full | None]:
        """Count the rows of each request, (principal, rows), in order; or the limit that they exceed: then none of that
        request is counted. Raises StoreError."""
        charges = [Charge(self._accounts(principal), rows) for principal, rows in requests]
        reached = self._meter.take(charges, self._limits.window)
        return [self._full(charge.accounts, each) for charge, each in zip(charges, reached, strict=True)]

    def _accounts(self, principal: str) -> list[Account]:
        """The principal's account, first, and that of all together where there is one."""
        account = Account(f"{self._scope}/{PRINCIPAL}/{principal}", self._limits.rows)
        accounts = [account]
        if self._limits.total is not None:
            accounts.append(Account(f"{self._scope}/{TOTAL}", self._limits.total))
        return accounts

    @staticmethod
    def _full(accounts: Sequence[Account], reached: Reached | None) -> Full | None:
        if reached is None:
            return None
        limit = PRINCIPAL if reached.account == accounts[0].name else TOTAL
        return Full(limit, max(1, int(-(-reached.seconds // 1))))


def named(principal: str | None) -> str | None:
    """The principal that a header's value names, SHARED where there is no header; None where it can be no name."""
    if principal is None:
        return SHARED
    return principal if _NAMED.fullmatch(principal) else None


def slot(now: float, window: float) -> int:
    """The number of the slot under way at `now`, in seconds since the epoch."""
    return int(now // (window / SLOTS))


def full_for(taken: Mapping[int, int], rows: int, most: int, *, now: float, window: float) -> float | None:
    """None where an account that took so many rows by slot has room for `rows` more, else seconds until it may have.

    Slots that have left the sum do not count, nor do those of the future: they are from before a clock was set back.
    """
    current = slot(now, window)
    counted = {number: count for number, count in taken.items() if current - SLOTS <= number <= current}
    left = sum(counted.values())
    if left + rows <= most:
        return None
    for number in sorted(counted):
        left -= counted[number]
        if left + rows <= most:
            return (number + SLOTS + 1) * window / SLOTS - now
    return window  # more rows than `most` never fit; policies do not allow such requests
