"""Calibrations by hand, and against counts and exact binomial sums."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from defenses.gate import FORMS
from defenses.policy import Policy
from tests.defenses.policies import GATE, section
from training.calibration.benign import RATES, calibration, interval


def of_scores(scores: Any) -> dict[str, Any]:
    """The calibration of images with these scores: the paper's form and alpha = 1 leave the first term as it is."""
    terms = np.zeros((*np.shape(scores), 2))
    terms[..., 0] = scores
    return calibration(terms, form="paper", alpha=1.0)


def shuffled(count: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(1.0, count + 1))


def test_a_hundred_images_by_hand() -> None:
    made = of_scores(shuffled(100))  # S_k = 101 - k
    assert made["images"] == 100
    assert (made["centres"], made["spreads"]) == ([0.0, 0.0], [1.0, 1.0])
    assert made["tail"][0] == [1.0, 1.0]
    assert made["tail"][-1] == [0.0990099, 92.0]  # 10 / 101 at S_9
    assert made["excess"] == 4.5  # of 93 .. 100 over 92
    # m = floor(1.01) = 1; of Binomial(100, 0.01) P(J < 1) = 0.366, P(J < 3) = 0.921 and P(J < 4) = 0.982
    assert made["thresholds"] == [{"rate": 0.01, "score": 100.0, "low": 97.0, "high": None}]


def test_four_thousand_images_by_hand() -> None:
    made = of_scores(shuffled(4000))
    assert made["tail"][0] == [1.0, 1.0]
    assert made["tail"][-1] == [0.00249938, 3992.0]  # 10 / 4001 at S_9
    # m = floor(40.01) and floor(4.001); l = 54 and h = 28, 9 and 1 by exact binomial sums, see below
    assert made["thresholds"] == [
        {"rate": 0.01, "score": 3961.0, "low": 3947.0, "high": 3973.0},
        {"rate": 0.001, "score": 3997.0, "low": 3992.0, "high": 4000.0},
    ]


def test_medians_and_deviations_by_hand() -> None:
    terms = np.stack([np.arange(-50.0, 51.0), np.full(101, 0.3)], axis=1)
    made = calibration(terms, form="robust", alpha=0.5)
    assert made["centres"] == [0.0, 0.3]
    assert made["spreads"] == [25.0, 1e-3], "what never varies is not divided by 0"
    # the largest score: 0.5 * 50 / 25
    assert made["thresholds"][0]["score"] == 1.0
    assert calibration(terms, form="robust", alpha=1.0)["thresholds"][0]["score"] == 2.0


def test_a_tail_is_what_counting_says() -> None:
    scores = np.random.default_rng(1).normal(size=3000)
    made = of_scores(scores)
    probabilities, table = np.array(made["tail"]).T
    assert 35 <= len(table) <= 40
    assert probabilities[0] == 1.0
    assert probabilities[-1] == pytest.approx(10 / 3001, rel=1e-5)
    steps = np.diff(np.log(probabilities))
    assert steps.max() < 0.5 * steps.mean() < 0, "evenly spaced, up to whole ranks"
    for probability, score in made["tail"]:
        # a score of six digits may lie above its own image
        reached = (scores >= score - 1e-5 * abs(score)).sum()
        assert probability == pytest.approx((reached + 1) / 3001, rel=1e-5)


@given(counts=st.lists(st.integers(1, 40), min_size=3, max_size=12), largest=st.integers(1, 8))
def test_equal_scores_share_one_probability(counts: list[int], largest: int) -> None:
    # fewer than nine are the largest, or the table's end were among them
    counts = [100, *counts, largest]
    scores = np.repeat(np.arange(len(counts), dtype=np.float64), counts)
    made = of_scores(scores)
    table = [score for _, score in made["tail"]]
    assert table == sorted(set(table))
    for probability, score in made["tail"]:
        assert probability == pytest.approx(((scores >= score).sum() + 1) / (len(scores) + 1), rel=1e-5)
    threshold = made["thresholds"][0]["score"]
    assert (scores > threshold).sum() <= math.floor(0.01 * (len(scores) + 1)) - 1


def binomial(images: int, rate: float, below: int) -> Fraction:
    """P(J < below), exactly."""
    share = Fraction(str(rate))
    return sum(
        (math.comb(images, j) * share**j * (1 - share) ** (images - j) for j in range(below)),
        start=Fraction(0),
    )


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("images", [100, 367, 368, 1000, 3687, 3688, 4000])
def test_an_interval_is_the_narrowest_of_order_statistics_that_holds_enough(images: int, rate: float) -> None:
    low, high = interval(images, rate)
    assert binomial(images, rate, high) <= Fraction(25, 1000) < binomial(images, rate, high + 1)
    assert binomial(images, rate, low) >= Fraction(975, 1000) > binomial(images, rate, low - 1)


def test_where_there_are_too_few_images_for_a_rate() -> None:
    assert [interval(images, 0.01)[1] for images in (367, 368)] == [0, 1]
    assert [interval(images, 0.001)[1] for images in (3687, 3688)] == [0, 1]
    for images, rates in ((998, [0.01]), (999, [0.01, 0.001])):
        made = of_scores(shuffled(images))
        assert [threshold["rate"] for threshold in made["thresholds"]] == rates
    assert made["thresholds"][1]["score"] == 999.0
    assert made["thresholds"][1]["high"] is None
    assert made["thresholds"][0]["high"] is not None


def test_a_further_benign_image_is_above_the_threshold_as_often_as_its_rate_says() -> None:
    # whatever the distribution: of N + 1 images in a row, the last is above the m-th largest of the others m times
    scores = np.random.default_rng(2).standard_cauchy(200)
    flagged = 0
    for last in range(200):
        others = np.delete(scores, last)
        flagged += bool(scores[last] > of_scores(others)["thresholds"][0]["score"])
    assert flagged == 2  # m = floor(0.01 * 200)


def test_answers_to_one_image_are_not_images() -> None:
    scores = shuffled(400)
    alone = of_scores(scores)
    assert of_scores(np.repeat(scores[:, np.newaxis], 3, axis=1)) == alone
    # three members whose scores are 0, 1000 and 2000 higher: S_k is the 3k-th largest of all
    spread = scores[:, np.newaxis] + np.array([0.0, 1000.0, 2000.0])
    largest = np.sort(spread.ravel())[::-1]
    made = of_scores(spread)
    assert made["images"] == 400
    assert made["thresholds"][0]["score"] == largest[4 * 3 - 1]
    assert made["tail"][0] == [1.0, 1.0]
    assert made["tail"][-1] == [pytest.approx(10 / 401, rel=1e-5), largest[9 * 3 - 1]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("images", [100, 1000])
def test_a_calibration_is_plain_and_a_policy_reads_it(form: str, images: int) -> None:
    terms = np.random.default_rng(3).gamma(2.0, size=(images, 2, 2))
    made = calibration(terms, form=form, alpha=0.3)
    table = yaml.safe_load(yaml.safe_dump(made))
    assert table == made
    policy = Policy.parse(section(gate={**GATE, "form": form, "alpha": 0.3, "calibration": table}))
    assert policy.gate is not None
    # what was flagged of the images themselves, by the policy's own arithmetic
    scores = policy.gate.scores(terms.reshape(-1, 2))
    share = (scores.score > policy.gate.threshold).mean()
    assert share <= 0.01
    assert share > 0.005 or images == 100
    middle = np.argsort(scores.score)[len(scores.score) // 2]
    assert scores.tail[middle] == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("terms", "alpha", "message"),
    [
        (np.ones((99, 2)), 0.5, "expected at least 100 benign images, got 99: a rate of 1 % is one of them"),
        (np.ones((99, 5, 2)), 0.5, "expected at least 100 benign images, got 99"),
        (np.ones((100, 2)), 1.5, r"alpha: expected a number from 0 to 1, got 1\.5"),
        (np.ones((100, 2)), math.nan, "alpha: expected a number from 0 to 1, got nan"),
        (np.ones((100, 2)), 0.5, "expected benign scores that differ, got 1 for all of the largest ones"),
        (
            np.concatenate([np.ones((98, 2)), [[1.0, math.nan], [math.inf, 1.0]]]),
            0.5,
            "expected finite terms of the score 'paper', got others in 2 of 100 rows",
        ),
    ],
)
def test_what_cannot_be_calibrated(terms: np.ndarray, alpha: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration(terms, form="paper", alpha=alpha)
