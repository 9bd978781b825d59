"""Intervals of shares and the times of answers, for every part of a campaign alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation import roc


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was seen in `count` trials; [0, 1] for none."""
    return roc.wilson(share * count, count) if count else (0.0, 1.0)


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    """p50 and p99 of milliseconds; 0 for none."""
    if not times:
        return 0.0, 0.0
    p50, p99 = np.percentile(times, (50, 99))
    return round(float(p50), 3), round(float(p99), 3)
