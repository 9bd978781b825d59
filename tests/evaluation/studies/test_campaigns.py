"""Campaigns dealt out to accounts, and the whole study at a real archive with a gate that refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.studies import campaigns
from evaluation.studies.campaigns import STRANGERS, Pool, dealt, length
from tests.evaluation import gated
from tests.evaluation.studies.command import study

BUDGET = {"level": 0.001, "then": "label"}


@pytest.fixture
def pool() -> Pool:
    """40 images of customers, then 30 of a thief; the places of half of the former are honest queries."""
    numbers = np.arange(70)
    return Pool(np.zeros(70), numbers, (numbers,), np.arange(1, 40, 2), np.arange(40, 70))


def test_a_campaign_is_dealt_out_in_turn(pool: Pool) -> None:
    places = dealt(pool, 10, 0.0, np.random.default_rng(0))
    assert places.shape == (10 + STRANGERS, 3)
    assert (places[:10] == 40 + np.arange(30).reshape(3, 10).T).all()
    assert set(places[10:].ravel()) <= set(pool.honest)


def test_honest_queries_lie_between_a_campaign_s(pool: Pool) -> None:
    places = dealt(pool, 2, 0.9, np.random.default_rng(0))
    assert places.shape == (2 + STRANGERS, 150)
    for account in (0, 1):
        own = places[account][places[account] >= 40]
        assert 5 < len(own) <= 15
        assert (own == 40 + account + 2 * np.arange(len(own))).all()
    assert length(30, 3, 0.5) == 20
    assert length(10**6, 1, 0.5) == campaigns.LONGEST


def test_kinds_of_honest_accounts_are_drawn_from_their_half() -> None:
    random, half = np.random.default_rng(0), np.arange(1, 1000, 2)
    assert set(campaigns.drawn(random, half).ravel()) <= set(half)
    runs = campaigns.neighbours(random, half)
    assert (np.diff(runs) == 2).all()
    popular = campaigns.popular(random, half)
    assert len(np.unique(popular[:, : campaigns.POPULAR])) <= campaigns.FAVOURITES
    assert len(np.unique(popular[:, campaigns.POPULAR :])) > campaigns.FAVOURITES


def test_the_study_measures_strangers_and_campaigns_and_keeps_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaigns, "THIEVES", {"knockoff": (None, campaigns.JITTERED), "maze": (None,)})
    monkeypatch.setattr(campaigns, "RECORDED", 200)
    monkeypatch.setattr(campaigns, "CLIENTS", (1, 5))
    monkeypatch.setattr(campaigns, "DILUTIONS", (0.0, 0.9))
    recipe = gated.recipe(tmp_path)
    gated.archive(tmp_path, "same-budget", gate=gated.REJECTING, budget=BUDGET)
    words = ("--policies", "same-budget", "--runs", "2", "--groups", "1")
    report = study("campaigns", *words, run=tmp_path / "run", store=tmp_path, recipe=recipe)
    chosen, *judged = [row for row in report.strangers if row.grid == campaigns.CODES[-1].grid]
    assert (chosen.chosen, chosen.linked, chosen.accounts) == (True, 0, STRANGERS)
    assert not any(row.chosen for row in judged)
    assert {row.account for row in judged} >= {"one class", "popular images", "popular images, a copy of one's own"}
    assert {row.account for row in report.campaigns} == {"knockoff", "knockoff+jittered-4"}, "the recipe has no maze"
    by = {(row.account, row.clients, row.dilution, row.grid): row for row in report.campaigns}
    assert len(by) == len(report.campaigns) == 2 * 2 * 2 * len(campaigns.CODES)
    one = by["knockoff", 1, 0.0, campaigns.CODES[0].grid]
    assert (one.queries, one.campaigns, one.strangers, one.level) == (200, 2, STRANGERS, 0.001)
    assert (one.alone, one.linked) == (1, 0)
    kept = sorted((tmp_path / "run" / "queries").glob("*.npz"))
    assert len(kept) == 4
    monkeypatch.setattr(campaigns, "carried_out", lambda *_, **__: pytest.fail("queries are kept"))
    again = study("campaigns", *words, run=tmp_path / "run", store=tmp_path, recipe=recipe)
    assert (again.strangers, again.campaigns) == (report.strangers, report.campaigns)


def test_a_policy_without_a_budget_is_a_message(tmp_path: Path) -> None:
    recipe = gated.recipe(tmp_path)
    gated.archive(tmp_path, "same-reject", gate=gated.REJECTING)
    with pytest.raises(SystemExit, match="same-reject: expected a policy with a budget, got none"):
        study("campaigns", "--policies", "same-reject", run=tmp_path / "run", store=tmp_path, recipe=recipe)
