"""Accounts that become one: their capital begins as the mean of theirs, and honest ones are flagged no more often."""

from __future__ import annotations

import numpy as np
import pytest

from defenses.budget import BETS, advanced, opened, reserve
from evaluation.company import Company, Doubles, components, together

B = len(BETS)


def capital(state: Doubles) -> float:
    """What an account has now."""
    return float(reserve(state[:1])[0] + state[2:].sum())


def after(*factors: float, queries: int = 20) -> Doubles:
    """Accounts of so many queries, all of whose bets win so much with each: (A, 2 + B)."""
    return advanced(opened(len(factors)), np.broadcast_to(np.array(factors)[:, None, None], (len(factors), queries, B)))


def test_one_account_of_several_has_the_mean_of_their_capital() -> None:
    states = np.concatenate([after(1.0, 1.2, queries=20), after(0.7, queries=500)])
    one = together(states)
    assert capital(one) == pytest.approx(np.mean([capital(state) for state in states]))
    assert one[1] == pytest.approx(capital(one)), "earlier peaks are not inherited"
    assert one[2:] == pytest.approx(states[:, 2:].mean(axis=0))
    assert 20 < one[0] < 500
    assert together(states[:1])[[0, *range(2, 2 + B)]] == pytest.approx(states[0, [0, *range(2, 2 + B)]])


def test_components_are_named_by_their_first_account() -> None:
    linked = np.zeros((6, 6), bool)
    for a, b in ((4, 1), (1, 5), (2, 3)):
        linked[a, b] = linked[b, a] = True
    assert components(linked).tolist() == [0, 1, 2, 2, 1, 1]


def test_linked_accounts_are_flagged_by_what_they_ask_together() -> None:
    company, alone = Company(4, limit=1000), after(1.0, 1.0, 1.0, 1.0, queries=1)
    linked = np.zeros((4, 4), bool)
    linked[0, 1] = linked[1, 0] = linked[1, 2] = linked[2, 1] = True
    company.link(linked, alone)
    factors = np.full((4, 8, B), 1.6)
    alone = advanced(alone, factors)
    assert (alone[:, 1] < 1000).all()
    company.charge(factors, alone)
    assert company.flagged.tolist() == [True, True, True, False]


def test_queries_of_a_component_are_counted_in_turn() -> None:
    company, alone = Company(2, limit=1e9), opened(2)
    company.link(np.ones((2, 2), bool), alone)
    factors = np.random.default_rng(0).uniform(0.5, 2, (2, 3, B))
    company.charge(factors, advanced(alone, factors))
    in_turn = factors[[0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]]
    assert company._states[0] == pytest.approx(advanced(opened(1), in_turn[None])[0])


def test_who_is_flagged_joins_nobody() -> None:
    alone = after(3.0, 1.0)
    company = Company(2, limit=1000)
    company.charge(np.empty((2, 0, B)), alone)
    company.link(np.ones((2, 2), bool), alone)
    assert company.flagged.tolist() == [True, False]
    company.charge(np.ones((2, 5, B)), alone)
    assert company.flagged.tolist() == [True, False]


def test_honest_accounts_are_flagged_no_more_often_however_they_are_linked() -> None:
    # fair bets, and a link that looks for trouble: whoever has the most capital is linked to whoever has the least
    random = np.random.default_rng(1)
    level, flagged, accounts = 0.05, 0, 40
    for _ in range(40):
        company, alone = Company(accounts, limit=1 / level), opened(accounts)
        for _ in range(6):
            factors = random.choice([0.2, 1.8], (accounts, 10, 1)) * np.ones(B)
            alone = advanced(alone, factors)
            company.charge(factors, alone)
            order = np.argsort(alone[:, 2:].sum(axis=1))
            linked = np.zeros((accounts, accounts), bool)
            linked[order[0], order[-1]] = linked[order[-1], order[0]] = True
            company.link(linked, alone)
        flagged += int(company.flagged.sum())
    assert 0 < flagged <= 40 * accounts * level
