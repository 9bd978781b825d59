"""Accounts drawn from scores, and a thief's queries recorded at a real archive with a gate that refuses."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from defenses.budget import Bets
from defenses.gate import Calibration, Threshold
from evaluation.studies import budget
from tests.evaluation import gated
from tests.evaluation.studies.command import study

BUDGET = {"level": 0.001, "then": "label"}
RECIPE = gated.RECIPE + '\n[attacks.in-distribution]\ndataset = "digits"\nbudget = 100\n'


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_draws_of_honest_accounts(random: np.random.Generator) -> None:
    scores = np.arange(100.0)
    assert set(budget.resampled(scores[:3], random, 4, 50).ravel()) == {0, 1, 2}
    runs = budget.in_runs(scores, 10, random, 3, 25)
    assert runs.shape == (3, 25)
    assert (np.diff(runs[:, :10]) == 1).all()
    assert (np.diff(runs[:, 10:20]) == 1).all()
    replay = budget.replayed(scores, 10, random, 3, 25)
    assert (replay[:, :10] == replay[:, 10:20]).all()


def test_a_diluted_thief_keeps_his_order(random: np.random.Generator) -> None:
    thief, honest = np.arange(1000.0, 1100.0), np.zeros(10)
    drawn = budget.diluted(thief, honest, 0.9, random, 50, 400)
    assert 0.08 < (drawn > 0).mean() < 0.12
    own = drawn[0][drawn[0] > 0]
    assert (own == 1000 + np.arange(len(own))).all(), "the first account begins where the attack does"
    for account in drawn[1:]:
        steps = np.diff(account[account > 0])
        assert set(steps) <= {1.0, -99.0}
    plain = budget.diluted(thief, honest, 0.0, random, 2, 150)
    assert (plain[0] == 1000 + np.arange(150) % 100).all()


def test_flagged_accounts_are_counted_by_part_and_length() -> None:
    table = [[1.0, 0.0], [0.1, 1.0], [0.01, 2.0]]
    threshold = Threshold(0.01, 2.0, None, None)
    bets = Bets(Calibration(4000, (0.0, 0.0), (1.0, 1.0), tuple(map(tuple, table)), 1.0, (threshold,)))  # type: ignore[arg-type]
    draws = [partial(budget.resampled, np.array([score])) for score in (0.5, 3.0)]
    found = budget.flagged(budget.Kind("both", True, draws, 0.0), bets, stops=(1, 20), accounts=10, level=0.001)
    assert [[part.tolist() for part in each] for each in found] == [[[False] * 5] * 2, [[False] * 5, [True] * 5]]


def test_the_study_measures_thieves_and_customers_and_keeps_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "THIEVES", {"knockoff": (None, "matched"), "in-distribution": (None,), "maze": (None,)})
    monkeypatch.setattr(budget, "RECORDED", 300)
    monkeypatch.setattr(budget, "LEARNING", 1100)
    recipe = gated.recipe(tmp_path, RECIPE)
    gated.archive(tmp_path, "same-budget", gate=gated.REJECTING, budget=BUDGET)
    words = ("--policies", "same-budget", "--runs", "1", "--accounts", "5", "--honest", "20")
    found = study("budget", *words, run=tmp_path / "run", store=tmp_path, recipe=recipe).budgets
    names = {row.account for row in found}
    assert {"knockoff", "knockoff+matched", "knockoff+matched, tuned before", "in-distribution"} <= names
    assert {"test images", "one class", "one run of 200, replayed", "blurred, sigma 1"} <= names
    assert not any("maze" in name for name in names), "the recipe has none"
    by = {(row.account, row.dilution, row.queries): row for row in found}
    thief = by["knockoff", 0.0, 200]
    assert (thief.thief, thief.accounts, thief.runs, thief.level) == (True, 5, 1, 0.001)
    assert thief.flagged == 1
    assert thief.refused > 0.3
    assert by["test images", 0.0, 1000].refused < 0.05
    kept = sorted((tmp_path / "run" / "scores").glob("*.npy"))
    monkeypatch.setattr(budget, "_attacked", lambda *_: pytest.fail("scores are kept"))
    again = study("budget", *words, run=tmp_path / "run", store=tmp_path, recipe=recipe).budgets
    assert again == found
    assert sorted((tmp_path / "run" / "scores").glob("*.npy")) == kept


def test_a_policy_without_a_budget_is_a_message(tmp_path: Path) -> None:
    recipe = gated.recipe(tmp_path)
    gated.archive(tmp_path, "same-reject", gate=gated.REJECTING)
    with pytest.raises(SystemExit, match="same-reject: expected a policy with a budget, got none"):
        study("budget", "--policies", "same-reject", run=tmp_path / "run", store=tmp_path, recipe=recipe)
