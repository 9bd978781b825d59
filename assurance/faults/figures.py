"""What became of each request while something went wrong, counted, and the bounds that a fault must stay within.

Times are seconds of one monotonic clock. An answer is right if it is the one that the same image got before the fault:
a wrong one would mean that a neighbour's answer, or a broken one, was taken for ours. A request is lost if it had no
answer when the client's patience ended, cut if the connection ended in its place, and unsent if there was no server to
send it to.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from report.fields import ResultError

RIGHT, WRONG, LOST, CUT, UNSENT = "right", "wrong", "lost", "cut", "unsent"


@dataclass(frozen=True)
class Outcome:
    """One request to `model`. what: RIGHT, WRONG, LOST, CUT or UNSENT, or else status and code of the refusal."""

    model: str
    begun: float
    ended: float
    what: str

    @property
    def ms(self) -> float:
        return 1000 * (self.ended - self.begun)


@dataclass(frozen=True)
class Felt:
    """What the clients of some models felt from the fault on; requests under way when it struck are among them.

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
class Bound:
    """One promise: `measured` (None: it never came) is at most `limit`."""

    what: str
    measured: float | None
    limit: float

    @property
    def met(self) -> bool:
        return self.measured is not None and self.measured <= self.limit


@dataclass(frozen=True)
class FaultRow:
    """One fault, once. struck: clients of what the fault hit. neighbours: those of the same server's other models.

    case: which form of the fault. run: counts from 0. facts: what else was seen, by name. bounds: as checked then.
    """

    fault: str
    case: str
    run: int
    struck: Felt | None
    neighbours: Felt | None
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


def felt(outcomes: Sequence[Outcome], struck_at: float, ended_at: float, *, clients: int) -> Felt:
    """What the clients felt between the fault and the end of the measurement."""
    mine = sorted((each for each in outcomes if each.ended >= struck_at), key=lambda each: each.ended)
    right = [each for each in mine if each.what == RIGHT]
    answered = [each.ms for each in right]
    return Felt(
        models=tuple(sorted({each.model for each in outcomes})),
        clients=clients,
        sent=len(mine),
        right=len(right),
        others=dict(sorted(Counter(each.what for each in mine if each.what != RIGHT).items())),
        gap_s=round(_gap([each.ended for each in right], struck_at, ended_at), 3),
        back_s=_back(mine, struck_at),
        p50_ms=round(float(np.median(answered)), 2) if answered else None,
        slowest_ms=round(max(answered), 1) if answered else None,
    )


def _gap(answers: Sequence[float], struck_at: float, ended_at: float) -> float:
    """The longest time without one of these, in order, at either end too."""
    times = [struck_at, *answers, max(ended_at, struck_at)]
    return max(later - earlier for earlier, later in itertools.pairwise(times))


def _back(mine: Sequence[Outcome], struck_at: float) -> float | None:
    """A request that failed is counted when it was sent: that it is known to be lost takes the client's patience."""
    failed = max((each.begun for each in mine if each.what != RIGHT), default=-math.inf)
    later = [each.ended for each in mine if each.what == RIGHT and each.begun > failed and each.begun >= struck_at]
    return round(min(later) - struck_at, 3) if later else None


def row_from(fields: dict[str, Any]) -> FaultRow:
    """A FaultRow from its JSON form. Raises ResultError."""
    try:
        told = {name: None if fields[name] is None else _felt_from(fields[name]) for name in ("struck", "neighbours")}
        bounds = tuple(Bound(**bound) for bound in fields["bounds"])
        return FaultRow(**{**fields, **told, "bounds": bounds})
    except (KeyError, TypeError) as error:
        names = ", ".join(each.name for each in dataclasses.fields(FaultRow))
        raise ResultError(f"expected the keys {names}; got {', '.join(fields)} ({error})") from error


def _felt_from(fields: dict[str, Any]) -> Felt:
    return Felt(**{**fields, "models": tuple(fields["models"])})
