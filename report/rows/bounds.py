"""A promise as a number: what was measured, and what it may be at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """One promise: `measured` (None: it never came) is at most `limit`."""

    what: str
    measured: float | None
    limit: float

    @property
    def met(self) -> bool:
        return self.measured is not None and self.measured <= self.limit
