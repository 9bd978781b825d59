"""Intervals of shares and the times of answers, for every part of a campaign alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.96


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in `count` trials (Wilson, JASA 1927); [0, 1] for none."""
    if count < 1:
        return 0.0, 1.0
    square = Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    """p50 and p99 of milliseconds; 0 for none."""
    if not times:
        return 0.0, 0.0
    p50, p99 = np.percentile(times, (50, 99))
    return round(float(p50), 3), round(float(p99), 3)
