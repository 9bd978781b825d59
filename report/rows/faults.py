"""Rows of fault injection: what became of clients' requests, and which bounds were kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from report.fields import ResultError
from report.rows.bounds import Bound

# what becomes of a request; any other word is status and code of a refusal
RIGHT, WRONG, LOST, CUT, UNSENT = "right", "wrong", "lost", "cut", "unsent"
# between an answer and the same client's next request
PAUSE_S = 0.02


@dataclass(frozen=True)
class Impact:
    """What the clients of some models saw from the fault on; requests under way when it struck are among them.

    others: requests by what became of them, all but the right ones. gap_s: longest time without a right answer. back_s:
    from the fault to the first right answer after which no request fails; None where that never came.
    """

    models: tuple[str, ...]
    clients: int
    sent: int
    right: int
    others: dict[str, int]
    gap_s: float
    back_s: float | None
    p50_ms: float | None
    slowest_ms: float | None

    def count(self, *what: str) -> int:
        """Requests that these became of."""
        return sum(self.others.get(name, 0) for name in what)


@dataclass(frozen=True)
class FaultRow:
    """One fault, once. struck: clients of what the fault hit. neighbours: those of the same server's other models.

    case: which form of the fault. run: counts from 0. facts: what else was seen, by name. bounds: as checked then.
    """

    SCOPE: ClassVar = ("fault", "case")

    fault: str
    case: str
    run: int
    struck: Impact | None
    neighbours: Impact | None
    bounds: tuple[Bound, ...]
    facts: dict[str, float | str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.bounds:
            raise ResultError(f"{self.fault}, {self.case}: expected bounds, got none: nothing would be promised")

    @property
    def broken(self) -> list[str]:
        """A line for each bound that was not met."""
        return [
            f"{self.fault} ({self.case}, run {self.run}): {bound.what}: expected at most {bound.limit:g}, "
            f"got {'none at all' if bound.measured is None else f'{bound.measured:g}'}"
            for bound in self.bounds
            if not bound.met
        ]
