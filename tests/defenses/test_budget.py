"""The account's bets against rows worked out one by one, and the promise: honest accounts are hardly ever flagged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from defenses import budget
from defenses.budget import BETS, RECENT, UNLUCKY, Accounts, Asked, Bets, Budget, advanced, bounds, opened, reserve
from defenses.gate import Calibration, Threshold
from defenses.memory import Change, StoreError
from tests.defenses.policies import CALIBRATION
from training.calibration.benign import calibration


def table(images: int = 4000, **changes: Any) -> Calibration:
    fields = {**CALIBRATION, "images": images, **changes}
    return Calibration(**{**fields, "thresholds": tuple(Threshold(**each) for each in fields["thresholds"])})


def measured(scores: np.ndarray) -> Calibration:
    """What training.calibration makes of benign images with these scores (N,)."""
    made = calibration(np.stack([scores, np.zeros_like(scores)], axis=1), form="paper", alpha=1.0)
    return Calibration(**{**made, "thresholds": tuple(Threshold(**each) for each in made["thresholds"])})


def asked(*scores: float, first: int = 0) -> Asked:
    """Queries of as many images, each another."""
    return Asked(np.array(scores), np.arange(first, first + len(scores), dtype=np.uint32))


class Memory:
    """A ledger of this process."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}

    def revise(self, names: Sequence[str], change: Change, *, idle: float) -> None:
        old = [self.states.get(name) for name in names]
        change(old)  # a store may have to try twice
        self.states.update(zip(names, change(old), strict=True))


def test_a_bound_is_as_far_above_its_estimate_as_chernoff_s_tail_allows() -> None:
    found = bounds(np.array([1.0, 0.1, 0.01]), 999)
    assert found[0] == 1
    for probability, bound in zip((0.1, 0.01), found[1:], strict=True):
        f = (round(probability * 1000) - 1) / 999
        divergence = f * math.log(f / bound) + (1 - f) * math.log((1 - f) / (1 - bound))
        assert 999 * divergence == pytest.approx(math.log(3 / UNLUCKY))
        assert bound > probability
    (alone,) = bounds(np.array([1 / 1000]), 999)  # nobody above it: (1 - q)^N = UNLUCKY
    assert alone == pytest.approx(1 - UNLUCKY ** (1 / 999))


def test_bounds_hold_for_nearly_every_calibration() -> None:
    random = np.random.default_rng(0)
    broken = 0
    for _ in range(400):
        known = np.array(measured(random.random(500)).tail)
        broken += bool((bounds(known[:, 0], 500) < (1 - known[:, 1])).any())
    assert broken <= 400 * UNLUCKY


def test_a_factor_is_the_mean_of_its_power_over_the_cell() -> None:
    known = table()
    _, high, low = bounds(np.array([1.0, 0.1, 0.01]), 4000)
    found = Bets(known)(np.array([-2.0, 0.0, 1.0, 2.9, 3.0, 50.0]))
    cells = [(1.0, high), (1.0, high), (high, low), (high, low), (low, 0.0), (low, 0.0)]
    for row, (upper, lower) in zip(found, cells, strict=True):
        expected = [1 - m + m * (upper**k - lower**k) / (upper - lower) for k, m in BETS]
        assert row == pytest.approx(expected)


def test_factors_are_fair_where_the_bounds_are_exact_and_rise_with_the_score() -> None:
    known = measured(np.random.default_rng(1).normal(size=3000))
    found = Bets(known)
    edges = [1.0, *sorted({bound for bound in bounds(np.array(known.tail)[:, 0], known.images) if bound < 1}), 0.0]
    edges = sorted(edges, reverse=True)
    widths = -np.diff(edges)
    assert found._factors.shape == (len(widths), len(BETS))
    assert widths @ found._factors == pytest.approx(np.ones(len(BETS)))
    assert (np.diff(found._factors, axis=0) > 0).all()


def test_a_state_goes_on_as_the_formula_says() -> None:
    factors = np.random.default_rng(2).uniform(0.2, 3, (1, 5, len(BETS)))
    stakes, peak = [0.0] * len(BETS), 1.0
    for n, row in enumerate(factors[0]):
        before, after = 1 / math.log2(n + 2), 1 / math.log2(n + 3)
        stakes = [(stake + (before - after) / len(BETS)) * factor for stake, factor in zip(stakes, row, strict=True)]
        peak = max(peak, after + sum(stakes))
    (state,) = advanced(opened(1), factors)
    assert state == pytest.approx([5, peak, *stakes])
    one_by_one = opened(1)
    for row in range(5):
        one_by_one = advanced(one_by_one, factors[:, row : row + 1])
    assert (one_by_one[0] == state).all(), "however queries are batched"


def test_fair_factors_of_one_leave_the_capital_as_it_is() -> None:
    (state,) = advanced(opened(1), np.ones((1, 1000, len(BETS))))
    assert state[1] == pytest.approx(1.0)
    assert reserve(np.array([0.0]))[0] == 1


@pytest.mark.parametrize("images", [500, 6000])
def test_honest_accounts_are_flagged_no_more_often_than_the_level_says(images: int) -> None:
    random = np.random.default_rng(3)
    flagged = 0
    for _ in range(5):
        bets = Bets(measured(random.normal(size=images)))
        states = opened(400)
        for _ in range(10):
            states = advanced(states, bets(random.normal(size=400 * 200)).reshape(400, 200, -1))
        flagged += int((states[:, 1] >= 1 / 0.01).sum())
    assert flagged <= 2000 * 0.01


def test_who_was_honest_for_long_is_still_caught() -> None:
    random = np.random.default_rng(4)
    bets = Bets(measured(random.normal(size=6000)))
    states = opened(20)
    for _ in range(20):
        states = advanced(states, bets(random.normal(size=20 * 500)).reshape(20, 500, -1))
    assert (states[:, 1] < 1000).all()
    thieving = bets(random.normal(1.5, 1, size=20 * 200)).reshape(20, 200, -1)
    assert (advanced(states, thieving)[:, 1] >= 1000).all()
    assert (advanced(opened(20), thieving[:, :60])[:, 1] >= 1000).all()


def test_accounts_are_charged_in_order_and_stay_spent() -> None:
    memory = Memory()
    accounts = Accounts(Budget(0.001, "label"), table(), recipe="digits", ledger=memory)
    first = accounts.charge({"acme": asked(9.0, np.nan, 9.0), "other": asked(0.0)})
    assert first["acme"].queries == 2, "a row without a score is none"
    assert not first["acme"].spent
    second = accounts.charge({"acme": asked(9.0, 9.0, 9.0, first=3)})
    assert (second["acme"].spent, second["acme"].new, second["acme"].queries) == (True, True, 5)
    third = accounts.charge({"acme": asked(*[0.0] * 500, first=6), "other": asked()})
    assert (third["acme"].spent, third["acme"].new) == (True, False)
    assert third["acme"].capital == second["acme"].capital
    assert (third["other"].queries, third["other"].spent) == (1, False)
    assert sorted(memory.states) == ["digits/budget/acme", "digits/budget/other"]
    assert len(memory.states["digits/budget/acme"]) == 8 * (2 + len(BETS)) + 4 * RECENT
    assert len(memory.states["digits/budget/other"]) == 8 * (2 + len(BETS)) + 4


def test_an_image_is_not_counted_again_while_it_is_recent() -> None:
    memory = Memory()
    accounts = Accounts(Budget(0.001, "label"), table(), recipe="digits", ledger=memory)
    probe = Asked(np.full(3, 9.0), np.array([7, 7, 8], np.uint32))
    for _ in range(50):
        standing = accounts.charge({"health": probe})["health"]
    assert (standing.queries, standing.spent) == (2, False)
    for last in range(RECENT - 1):
        accounts.charge({"health": asked(0.0, first=100 + last)})
    assert (
        accounts.charge({"health": Asked(np.array([9.0]), np.array([8], np.uint32))})["health"].queries
        == 2 + RECENT - 1
    )
    assert (
        accounts.charge({"health": Asked(np.array([9.0]), np.array([7], np.uint32))})["health"].queries
        == 3 + RECENT - 1
    )


def test_a_state_with_other_bets_stays_spent_and_bets_anew() -> None:
    memory = Memory()
    memory.states["digits/budget/acme"] = np.array([700.0, 5000.0, 1.0], "<f8").tobytes()
    accounts = Accounts(Budget(0.001, "label"), table(), recipe="digits", ledger=memory)
    assert accounts.charge({"acme": asked(0.0)})["acme"] == (701, 5000.0, True, False)


def test_capital_does_not_overflow() -> None:
    bets = Bets(table(images=10**8, tail=[[1.0, 0.0], [1e-6, 1.0]]))
    states = advanced(opened(1), bets(np.full(2000, 9.0))[None])
    assert np.isfinite(states).all()
    assert states[0, 1] <= len(BETS) * budget.MOST + 1


def test_a_ledger_that_fails_is_an_error() -> None:
    class Broken:
        def revise(self, names: Sequence[str], change: Change, *, idle: float) -> None:
            raise StoreError("gone")

    with pytest.raises(StoreError, match="gone"):
        Accounts(Budget(0.001, "label"), table(), recipe="digits", ledger=Broken()).charge({"acme": asked(0.0)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((0, "label"), "level"),
        ((0.2, "label"), "level"),
        ((1e-13, "label"), "level: expected at least 1e-12, got 1e-13"),
        ((0.001, "ban"), "then: expected one of label, price, refuse, observe, got 'ban'"),
    ],
)
def test_a_wrong_budget_is_named(fields: tuple[float, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(*fields)
