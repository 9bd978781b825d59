"""Detection figures worked out by hand: ties, perfect and inverted scores, ratios, Wilson's interval."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evaluation import roc
from evaluation.roc import Figures

BENIGN, ATTACK = np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0, 5.0])


def test_the_figures_of_eight_scores_two_of_them_tied() -> None:
    # pairs won by the attack: 4 and 4 of the scores 5 and 4, 3.5 of 3, 2.5 of 2: 14 of 16.
    # thresholds 5, 4, 3, 2: TPR .25, .5, .75, 1 at FPR 0, 0, .25, .5; precision 1, 1, 3/4, 4/6.
    found = roc.figures(BENIGN, ATTACK)
    assert found.auroc == pytest.approx(14 / 16)
    assert found.aupr == pytest.approx(0.25 * (1 + 1 + 3 / 4 + 4 / 6))
    assert found.fpr95 == pytest.approx(0.25 + 0.8 * 0.25)  # four fifths of the way from .75 to 1
    assert found.fpr90 == pytest.approx(0.25 + 0.6 * 0.25)
    assert (found.tpr_at_1pct, found.tpr_at_01pct) == (0.5, 0.5)


def test_a_perfect_and_an_inverted_score() -> None:
    assert roc.figures(BENIGN, ATTACK + 10) == Figures(1.0, 1.0, 0.0, 0.0, 1.0, 1.0)
    inverted = roc.figures(ATTACK + 10, BENIGN)
    assert (inverted.auroc, inverted.fpr95, inverted.fpr90) == (0.0, 1.0, 1.0)
    assert (inverted.tpr_at_1pct, inverted.tpr_at_01pct) == (0.0, 0.0)
    # precision at 1, 2, 3 and 4 attack rows found, after all four benign ones
    assert inverted.aupr == pytest.approx(0.25 * (1 / 5 + 2 / 6 + 3 / 7 + 4 / 8))


def test_scores_that_say_nothing() -> None:
    found = roc.figures(np.zeros(30), np.zeros(10))
    assert found == Figures(0.5, pytest.approx(0.25), 0.95, 0.9, 0.0, 0.0)


def test_a_threshold_flags_at_most_so_many_benign_rows() -> None:
    benign = np.arange(1000.0)
    found = roc.figures(benign, np.array([989.5, 998.5, 999.5, 1500.0]))
    # above 989: 10 of 1,000, and every attack row; above 998: one, and three
    assert (found.tpr_at_1pct, found.tpr_at_01pct) == (1.0, 0.75)
    lower = roc.figures(benign, np.array([988.5, 997.5, 999.5, 1500.0]))
    assert (lower.tpr_at_1pct, lower.tpr_at_01pct) == (0.75, 0.5)


def test_a_level_that_the_roc_reaches_at_a_point_costs_no_more_than_that() -> None:
    # 19 of 20 attack rows lie above all but one benign row; the last benign rows are worse than the last attack row
    benign, attack = np.array([0.0, 1.0, 2.0, 50.0]), np.array([*range(10, 29), 0.5])
    assert roc.figures(benign, attack).fpr95 == pytest.approx(0.25)


def test_aupr_is_reported_for_a_share_of_attack_rows() -> None:
    # at thresholds 5, 4, 3, 2 weighed to one attack row in ten: precision 1, 1, .1*.75/(.1*.75 + .9*.25), .1/(.1 + .45)
    rare = roc.figures(BENIGN, ATTACK, ratio=0.1)
    assert rare.aupr == pytest.approx(0.25 * (1 + 1 + 0.075 / 0.3 + 0.1 / 0.55))
    assert dataclasses.replace(rare, aupr=0) == dataclasses.replace(roc.figures(BENIGN, ATTACK), aupr=0)
    # the same as having nine times as many benign rows
    many = roc.figures(np.repeat(BENIGN, 9), ATTACK)
    assert many.aupr == pytest.approx(rare.aupr)


@pytest.mark.parametrize(
    ("ratio", "counts"), [(0.01, (101, 10_000)), (0.05, (526, 10_000)), (0.5, (4000, 4000)), (0.9, (4000, 444))]
)
def test_the_most_rows_of_a_share(ratio: float, counts: tuple[int, int]) -> None:
    assert roc.share(10_000, 4_000, ratio) == counts


def test_subsamples_are_seeded_and_their_figures_averaged() -> None:
    random = np.random.default_rng(3)
    benign, attack = random.normal(size=300), random.normal(1, 1, size=300)
    found, *counts = roc.at_ratio(benign, attack, 0.1)
    assert counts == [33, 300]
    assert roc.at_ratio(benign, attack, 0.1) == (found, 33, 300)
    once = roc.at_ratio(benign, attack, 0.1, draws=1)[0]
    assert once.auroc != found.auroc
    assert found.auroc == pytest.approx(roc.figures(benign, attack).auroc, abs=0.05)
    assert found.aupr < roc.figures(benign, attack).aupr
    whole = roc.at_ratio(benign, attack, 0.5)[0]
    assert whole.auroc == pytest.approx(roc.figures(benign, attack).auroc)


def test_missing_scores_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected finite scores of both kinds, got 4 benign and 0 of an attack"):
        roc.figures(BENIGN, np.array([]))
    with pytest.raises(ValueError, match="expected finite scores"):
        roc.figures(BENIGN, np.array([1.0, np.nan]))


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [
        # (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96
        (5, 10, 0.236593, 0.763407),
        (1, 100, 0.001767, 0.054486),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (100, 10_000, 0.008229, 0.012147),
    ],
)
def test_wilsons_interval(hits: int, rows: int, low: float, high: float) -> None:
    assert roc.wilson(hits, rows) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


def test_percentiles_are_a_hundred_and_one() -> None:
    found = roc.percentiles(np.arange(201.0))
    assert (len(found), found[0], found[50], found[99], found[100]) == (101, 0.0, 100.0, 198.0, 200.0)
