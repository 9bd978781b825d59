"""Scores put together, and the table of all of them."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from evaluation.scores import combined
from evaluation.scores.registry import SCORES, fitted
from evaluation.scores.score import FAMILIES
from tests.evaluation.scores import seeing


def test_p_values_count_benign_scores_at_least_as_high() -> None:
    benign = np.array([1.0, 2.0, 2.0, 5.0])
    assert combined.p_values(np.array([0.0, 1.0, 2.0, 3.0, 9.0]), benign) == pytest.approx([0.8, 0.8, 0.8, 0.4, 0.2])


def test_combinations_by_hand() -> None:
    p = np.array([[0.01, 0.5, 0.9], [0.2, 0.2, 0.2]])
    assert combined.bonferroni(p) == pytest.approx([-np.log(0.03), -np.log(0.6)])
    assert combined.fisher(p) == pytest.approx([-2 * np.log(0.01 * 0.5 * 0.9), -2 * np.log(0.2**3)])
    z = [[NormalDist().inv_cdf(1 - value) for value in row] for row in p.tolist()]
    assert combined.normal(p) == pytest.approx([sum(row) / 3**0.5 for row in z])


@pytest.fixture(scope="module")
def rules() -> dict[str, np.ndarray]:
    """What every score says of 20 images, the second ten noise."""
    known = seeing.known()
    seen = seeing.others(known)
    return {name: rule(seen) for name, rule in fitted(known).items()}


@pytest.mark.parametrize("name", SCORES)
def test_every_score_is_a_finite_number_of_every_image(name: str, rules: dict[str, np.ndarray]) -> None:
    found = rules[name]
    assert found.shape == (20,)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    assert len(np.unique(found)) > 1
    assert SCORES[name].family in FAMILIES


@pytest.mark.parametrize("name", SCORES)
def test_an_image_s_score_does_not_depend_on_its_neighbours(name: str) -> None:
    known = seeing.known()
    rule = fitted(known)[name]
    seen = seeing.others(known)
    alone = np.concatenate([rule(seen.other(part)) for part in seen.images.split(1)])
    assert alone == pytest.approx(rule(seen), rel=1e-4, abs=1e-5)


def test_put_together_is_made_of_what_was_fitted() -> None:
    known = seeing.known()
    rules = fitted(known)
    seen = seeing.others(known)
    parts = [rules[name] for name in ("error-two-sided", "alpha-0", "sharpness-two-sided")]
    p = [[(1 + sum(rule(known.benign) >= score)) / 121 for score in rule(seen)] for rule in parts]
    by_hand = combined.fisher(np.array(p).T.clip(max=120 / 121))
    assert rules["fisher-of-gate"](seen) == pytest.approx(by_hand)
