"""The outcome of each request during a fault, counted.

Times are seconds of one monotonic clock. An answer is right if it equals the one that the same image got before the
fault: a wrong one would mean that a neighbour's answer, or a broken one, was taken for ours. A request is lost if it
had no answer when the client's patience ended, cut if the connection was closed instead, and unsent if there was no
server to send it to.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from report.rows.faults import RIGHT, Impact


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


def impact(outcomes: Sequence[Outcome], struck_at: float, ended_at: float, *, clients: int) -> Impact:
    """The impact on the clients between the fault and the end of the measurement."""
    mine = sorted((each for each in outcomes if each.ended >= struck_at), key=lambda each: each.ended)
    right = [each for each in mine if each.what == RIGHT]
    answered = [each.ms for each in right]
    return Impact(
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
