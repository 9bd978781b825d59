"""What queries bought an attacker behind a defense, as a share of what they buy where nothing defends.

A clone's accuracy says little of an attacker who could have trained much of it unasked. With c and c0 the clone
accuracies of one attacker behind the policy and of `undefended`, and b and b0 what it could train without a query, each
seed for itself:

    gain bought = mean(c - b) / mean(c0 - b0)

Its noise is what the seeds' standard deviations s and s0 of numerator and denominator make of it, to first order:

    sqrt(s^2 + (gain bought)^2 s0^2) / mean(c0 - b0)

Where the undefended gain is under LEAST there is no ratio: it would divide noise by noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from statistics import mean, stdev

from report.headline import Cell

LEAST = 0.02


@dataclass(frozen=True)
class Gain:
    """points, undefended: mean(c - b) and mean(c0 - b0), fractions of all test images. share: of gain bought, None
    where the undefended gain is too small; noise: one standard deviation, None for one seed or without a share."""

    points: float
    undefended: float
    share: float | None
    noise: float | None

    def __str__(self) -> str:
        """As pages print it."""
        if self.share is None:
            return f"no ratio: undefended gains {100 * self.undefended:+.1f}"
        noise = "" if self.noise is None else f" ± {self.noise:.2f}"
        return f"{self.share:.2f}{noise}"


def gain(cell: Cell, undefended: Cell) -> Gain | None:
    """What the attacker of both cells bought; None where it was not measured what it could train without a query."""
    bought, free = _each(cell), _each(undefended)
    if not bought or not free:
        return None
    points, base = mean(bought), mean(free)
    if base < LEAST:
        return Gain(points, base, None, None)
    share = points / base
    if len(bought) < 2 or len(free) < 2:
        return Gain(points, base, share, None)
    return Gain(points, base, share, hypot(stdev(bought), share * stdev(free)) / base)


def _each(cell: Cell) -> list[float]:
    return [row.clone_accuracy - row.no_query_accuracy for row in cell.chosen if row.no_query_accuracy is not None]
