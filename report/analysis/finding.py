"""What a page answers first: sentences that say what holds and what does not, worked out from results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# of an answer
LINES = 10


@dataclass(frozen=True)
class Finding:
    """One sentence of a page's answer. holds: whether what it is about holds; None: neither, or not measured."""

    holds: bool | None
    text: str


def answer(findings: Iterable[Finding]) -> list[Finding]:
    """The findings as a page opens with them: first what does not hold, last what was not measured. At most LINES; of
    more, the last line counts the others."""
    found = sorted(findings, key=lambda each: (each.holds is not False, each.holds is None))
    if len(found) <= LINES:
        return found
    rest = found[LINES - 1 :]
    lost = sum(each.holds is False for each in rest)
    return [*found[: LINES - 1], Finding(not lost, f"{len(rest)} more, {lost} of which do not hold: see the tables.")]
