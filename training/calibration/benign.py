r"""The scores of benign images at a gate, as the `calibration` of a policy (defenses/gate.py) states it.

Of N images that trained nothing, sorted so that S_1 >= ... >= S_N are their scores, a further benign image may take any
rank among them with equal chance. So, whatever the scores' distribution,

    tail        P(S >= s) <= (r + 1) / (N + 1), r of the N scores being s or more: at about 40 of them, evenly spaced in
                log p, from 1 down to 10 / (N + 1)
    excess      mean of what the scores above the last of those exceed it by
    threshold   of a rate a: S_m, m = floor(a (N + 1)): a further one is above it with probability m / (N + 1) <= a
    interval    [S_l, S_h], which holds the true quantile with 95 %: if J ~ Binomial(N, a) images lie above that, the
                largest h with P(J < h) <= 0.025 and the smallest l with P(J < l) >= 0.975

Where N is too small for a rate (m = 0: below 99 and 999 images) there is no threshold of it; where it is too small for
h (h = 0: below 368 and 3,688), the interval has no upper end: None.

An image that an unknown one of M members answers counts with its M scores, each of weight 1 / M: S_k is then
the k M-th largest. M answers to one image are not M images, and make nothing surer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defenses.gate import FORMS, combined

Doubles = NDArray[np.float64]

RATES = (0.01, 0.001)
LEAST_IMAGES = 100
LEVELS = 40
# images beyond the table's end: fewer tell nothing of where it lies
LAST = 10
# neither a logarithm nor Hellinger's distance is known better; without it a term that never varies would decide alone
LEAST_SPREAD = 1e-3


def calibration(terms: Doubles, *, form: str, alpha: float) -> dict[str, Any]:
    """The `calibration` table of a policy's gate: lists, numbers of six digits and None, as YAML and JSON know them.

    terms: of benign images in this form, (N,2), or (N,M,2) where each has M answers. alpha: of the score, from 0 to 1.
    Raises ValueError: fewer than 100 images, terms that are not finite, largest scores that are equal.
    """
    images = len(terms)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
    if images < LEAST_IMAGES:
        raise ValueError(f"expected at least {LEAST_IMAGES} benign images, got {images}: a rate of 1 % is one of them")
    rows = terms.reshape(-1, 2)
    wrong = int((~np.isfinite(rows)).any(axis=1).sum())
    if wrong:
        raise ValueError(f"expected finite terms of the score {form!r}, got others in {wrong} of {len(rows)} rows")
    centres, spreads = _scale(rows, standardised=FORMS[form].standardised)
    scores = np.sort(_rounded(combined(rows, alpha=alpha, centres=centres, spreads=spreads)))[::-1]
    members = len(rows) // images
    largest = scores[members - 1 :: members]
    tail = _tail(largest)
    above = scores[scores > tail[-1][1]]
    if not len(above):
        raise ValueError(f"expected benign scores that differ, got {tail[-1][1]:g} for all of the largest ones")
    return {
        "images": images,
        "centres": list(centres),
        "spreads": list(spreads),
        "tail": tail,
        "excess": _plain(above.mean() - tail[-1][1]),
        "thresholds": [_threshold(largest, rate) for rate in RATES if _rank(images, rate)],
    }


def _scale(rows: Doubles, *, standardised: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """Medians and median absolute deviations of both terms, as they will be served."""
    if not standardised:
        return (0.0, 0.0), (1.0, 1.0)
    centres = _rounded(np.median(rows, axis=0))
    spreads = _rounded(np.median(np.abs(rows - centres), axis=0).clip(min=LEAST_SPREAD))
    return (float(centres[0]), float(centres[1])), (float(spreads[0]), float(spreads[1]))


def _tail(largest: Doubles) -> list[list[float]]:
    """[p, s] pairs from falling scores (N,): probabilities falling, scores rising."""
    images = len(largest)
    ranks = np.rint(np.geomspace(images + 1, LAST, LEVELS)).astype(np.int64) - 1
    # equal scores have one probability, that of all of them
    scores = np.unique(largest[ranks - 1])
    reached = np.searchsorted(-largest, -scores, side="right")
    return [[_plain((r + 1) / (images + 1)), float(s)] for r, s in zip(reached.tolist(), scores, strict=True)]


def _threshold(largest: Doubles, rate: float) -> dict[str, float | None]:
    low, high = interval(len(largest), rate)
    return {
        "rate": rate,
        "score": float(largest[_rank(len(largest), rate) - 1]),
        "low": float(largest[low - 1]),
        "high": float(largest[high - 1]) if high else None,
    }


def interval(images: int, rate: float) -> tuple[int, int]:
    """(l, h) above, 1 the largest score; h = 0 where there is none. rate: one for which 1 - rate^images >= 0.975."""
    above = np.arange(images + 1)
    factorials = np.concatenate([[0.0], np.log(above[1:]).cumsum()])
    chosen = factorials[-1] - factorials - factorials[::-1]
    at_most = np.exp(chosen + above * math.log(rate) + above[::-1] * math.log1p(-rate)).cumsum()
    return int((at_most < 0.975).sum()) + 1, int((at_most <= 0.025).sum())


def _rank(images: int, rate: float) -> int:
    """m above."""
    return math.floor(rate * (images + 1))


def _rounded(values: Doubles) -> Doubles:
    return np.array([_plain(value) for value in values])


def _plain(value: float) -> float:
    return float(f"{value:.6g}")
