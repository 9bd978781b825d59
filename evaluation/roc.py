"""How well a score separates attack rows from benign ones: the figures of SAME's tables (AAAI 2024), and an operator's.

The attack is the positive class, a high score means suspicious. FPR at TPR t is where the ROC, linear between its
points, first reaches t; TPR at FPR f is that of the best threshold that flags at most f of the benign rows, as one sets
a threshold. AUROC counts ties half. AUPR is the average precision, sum_n (R_n - R_n-1) P_n over thresholds, for a
stated share of attack rows: it says nothing without one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

SEED = 0
DRAWS = 5
# two-sided 95 % of a standard normal
NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Figures:
    """See report.rows.gates.DetectionRow; all in [0, 1]."""

    auroc: float
    aupr: float
    fpr95: float
    fpr90: float
    tpr_at_1pct: float
    tpr_at_01pct: float


def figures(benign: Scores, attack: Scores, *, ratio: float | None = None) -> Figures:
    """Of scores (B,) and (A,), both finite and not empty. ratio: share of attack rows that AUPR is weighed to; None: A
    of A + B. Raises ValueError where a score is missing."""
    # here, because it takes seconds and most of those who import this module compute none
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    scores = np.concatenate([benign, attack])
    if not len(benign) or not len(attack) or not np.isfinite(scores).all():
        raise ValueError(
            f"expected finite scores of both kinds, got {len(benign)} benign and {len(attack)} of an attack"
        )
    truth = np.repeat([0, 1], [len(benign), len(attack)])
    weight = len(attack) / len(scores) if ratio is None else ratio
    weights = np.repeat([(1 - weight) / len(benign), weight / len(attack)], [len(benign), len(attack)])
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    return Figures(
        auroc=float(roc_auc_score(truth, scores)),
        aupr=min(1.0, float(average_precision_score(truth, scores, sample_weight=weights))),  # but for rounding
        fpr95=fpr_at(0.95, fpr, tpr),
        fpr90=fpr_at(0.90, fpr, tpr),
        tpr_at_1pct=float(tpr[fpr <= 0.01].max()),
        tpr_at_01pct=float(tpr[fpr <= 0.001].max()),
    )


def fpr_at(level: float, fpr: Scores, tpr: Scores) -> float:
    """Where a ROC, points (fpr, tpr) that rise from (0, 0) to (1, 1), first reaches tpr = level in (0, 1]."""
    after = int(np.searchsorted(tpr, level))  # the first point at least that high
    step = (level - tpr[after - 1]) / (tpr[after] - tpr[after - 1])
    return float(fpr[after - 1] + step * (fpr[after] - fpr[after - 1]))


def at_ratio(benign: Scores, attack: Scores, ratio: float, *, draws: int = DRAWS) -> tuple[Figures, int, int]:
    """Means of the figures over `draws` seeded subsamples in which `ratio` of the rows are an attack's, and how many
    rows of the attack and benign ones each of them holds. Of what there is too much of is drawn, without replacement;
    the rest is used whole."""
    counts = share(len(benign), len(attack), ratio)
    found = []
    for draw in range(draws):
        random = np.random.default_rng([SEED, draw])
        few_attack, few_benign = random.choice(attack, counts[0], False), random.choice(benign, counts[1], False)
        found.append(dataclasses.astuple(figures(few_benign, few_attack)))
    return Figures(*(float(value) for value in np.mean(found, axis=0))), *counts


def share(benign: int, attack: int, ratio: float) -> tuple[int, int]:
    """The most rows (attack, benign) out of so many that keep `ratio` in (0, 1), at least one of each."""
    wanted = round(ratio / (1 - ratio) * benign)
    if wanted <= attack:
        return max(1, wanted), benign
    return attack, max(1, round((1 - ratio) / ratio * attack))


def wilson(hits: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share, hits of rows >= 1 (Wilson, JASA 1927), within [0, 1]. hits: a mean of several
    counts need not be whole."""
    z = NORMAL_95
    observed = hits / rows
    centre = observed + z**2 / (2 * rows)
    reach = z * math.sqrt(observed * (1 - observed) / rows + z**2 / (4 * rows**2))
    low, high = ((centre - reach) / (1 + z**2 / rows), (centre + reach) / (1 + z**2 / rows))
    # what rounding leaves of nothing and of everything
    return (max(0.0, low) if hits else 0.0), (min(1.0, high) if hits < rows else 1.0)


def percentiles(scores: Scores) -> tuple[float, ...]:
    """The 0th to the 100th, 101 values."""
    return tuple(float(value) for value in np.percentile(scores, np.arange(101)))
