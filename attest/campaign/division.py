"""The budget, divided among thieves by what each still gains: successive halving (Karnin, Koren and Somekh, ICML 2013).

In each of ROUNDS rounds an equal part of what is left is divided equally among the thieves that are still in; then the
better half goes on. Better is who would be ahead after one more round like the last:

    foresight = accuracy + (accuracy - accuracy a round before)

so that a thief that starts slowly and still gains outlives one that is ahead and has stopped. What a thief cannot
spend, because it has no more images, goes to the rounds that follow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

ROUNDS = 4


@dataclass(frozen=True)
class Standing:
    """A thief after a round. accuracy: of its best clone; before: the round before."""

    accuracy: float
    before: float

    @property
    def foresight(self) -> float:
        """What it would reach if it gained as much again."""
        return 2 * self.accuracy - self.before


def purse(left: int, number: int, thieves: int) -> int:
    """Queries for each of so many thieves in round `number`, from 0, of `left` for all rounds that are to come."""
    return left // (ROUNDS - number) // max(1, thieves)


def survivors(standings: Mapping[str, Standing]) -> list[str]:
    """The better half, one at least, in their order; the first of equals."""
    kept = math.ceil(len(standings) / 2)
    best = sorted(standings, key=lambda name: -standings[name].foresight)[:kept]
    return [name for name in standings if name in best]


def most(budget: int, thieves: int) -> int:
    """The queries of a thief that goes through all rounds: what its parameters are laid out for."""
    total, left = 0, budget
    for number in range(ROUNDS):
        each = purse(left, number, thieves)
        total, left = total + each, left - each * thieves
        thieves = math.ceil(thieves / 2)
    return total
