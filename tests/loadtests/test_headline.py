"""The headline, worked out by hand from the made-up report."""

from __future__ import annotations

import pytest

from loadtests.headline import cells, headline
from tests.loadtests import made_up
from tests.loadtests.made_up import attack_row

LINES = {line.policy: line for line in headline(made_up.report())}


def test_undefended_comes_first() -> None:
    assert list(LINES) == ["undefended", "edm", "weak"]


def test_the_thief_chooses_by_held_out_answers_and_not_by_the_test_set() -> None:
    soft = LINES["undefended"].soft
    assert soft is not None
    assert soft.clone_recipe == "adamw"
    assert soft.accuracy == pytest.approx(0.94)
    # sqrt(((.92 - .94)^2 + (.96 - .94)^2) / 1)
    assert soft.spread == pytest.approx(0.0282843, abs=1e-6)
    assert soft.hindsight == pytest.approx(0.97)


def test_the_largest_budget_counts() -> None:
    hard = LINES["undefended"].hard
    assert hard is not None
    assert (hard.budget, hard.accuracy, hard.spread) == (4000, 0.80, 0.0)


@pytest.mark.parametrize(
    ("policy", "best", "gap"),
    # .80 is what labels alone would leave the thief
    [("undefended", 0.94, -0.14), ("edm", 0.60, 0.20), ("weak", 0.85, -0.05)],
)
def test_gap_vs_top1_also_where_it_is_negative(policy: str, best: float, gap: float) -> None:
    line = LINES[policy]
    assert line.best is not None
    assert line.best.accuracy == pytest.approx(best)
    assert line.gap_vs_top1 == pytest.approx(gap)


def test_utility_stands_beside_it() -> None:
    assert (LINES["edm"].accuracy, LINES["edm"].accuracy_drop) == (0.985, 0.005)
    assert LINES["weak"].accuracy is None


def test_without_an_undefended_clone_there_is_no_gap() -> None:
    lines = headline(made_up.report(attacks=(attack_row(policy="edm"),)))
    assert [(line.policy, line.gap_vs_top1) for line in lines] == [("undefended", None), ("edm", None)]


def test_an_adaptive_form_is_an_attack_of_its_own() -> None:
    rows = [attack_row(clone_accuracy=0.5), attack_row(adaptive="average-5", clone_accuracy=0.7)]
    assert [(cell.attack, cell.accuracy) for cell in cells(rows)] == [("knockoff", 0.5), ("knockoff (average-5)", 0.7)]
    best = headline(made_up.report(attacks=tuple(rows)))[0].best
    assert best is not None
    assert best.accuracy == 0.7
