"""The 95 % interval of a share by Clopper and Pearson (Biometrika 1934), exact for few hits: no normal curve in it.

The ends are the shares at which so few, or so many, hits have a chance of 2.5 %, found by halving.
"""

from __future__ import annotations

import math
from collections.abc import Callable

TAIL = 0.025


def clopper_pearson(hits: int, rows: int) -> tuple[float, float]:
    """Of hits among rows >= 1, within [0, 1]."""
    low = 0.0 if hits == 0 else _where(lambda share: 1 - _up_to(hits - 1, rows, share) >= TAIL)
    high = 1.0 if hits == rows else _where(lambda share: _up_to(hits, rows, share) <= TAIL)
    return low, high


def _where(holds: Callable[[float], bool]) -> float:
    """The least share for which something holds that holds for all larger ones."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _up_to(hits: int, rows: int, share: float) -> float:
    """P(at most `hits` of `rows`), each with chance `share`."""
    if share <= 0:
        return 1.0
    if share >= 1:
        return float(hits >= rows)
    odds = math.log(share), math.log1p(-share)
    return min(1.0, sum(math.exp(_choose(rows, k) + k * odds[0] + (rows - k) * odds[1]) for k in range(hits + 1)))


def _choose(rows: int, hits: int) -> float:
    return math.lgamma(rows + 1) - math.lgamma(hits + 1) - math.lgamma(rows - hits + 1)
