"""The headline, worked out by hand from the synthetic report."""

from __future__ import annotations

import dataclasses

import pytest

from report.headline import Line, cells, headline
from report.rows.clones import AttackRow
from tests.report import synthetic
from tests.report.synthetic import attack_row

LINES = {line.policy: line for line in headline(synthetic.report())}


def test_undefended_comes_first() -> None:
    assert list(LINES) == ["undefended", "edm", "weak"]


def test_the_attacker_chooses_by_held_out_answers_and_not_by_the_test_set() -> None:
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
    # .80 is what labels alone would leave the attacker
    [("undefended", 0.94, -0.14), ("edm", 0.60, 0.20), ("weak", 0.85, -0.05)],
)
def test_gap_vs_top1_also_where_it_is_negative(policy: str, best: float, gap: float) -> None:
    line = LINES[policy]
    assert line.best is not None
    assert line.best.accuracy == pytest.approx(best)
    assert line.gap_vs_top1 == pytest.approx(gap)


def lines(*rows: AttackRow) -> dict[str, Line]:
    return {line.policy: line for line in headline(synthetic.report(attacks=rows, policies=()))}


# Knockoff and an attacker who needs probabilities, both on a policy that answers as undefended does
KNOCKOFF = (attack_row(clone_accuracy=0.95), attack_row(labels="hard", clone_accuracy=0.80))
DFME = (attack_row(attack="dfme", clone_accuracy=0.70), attack_row(attack="dfme", labels="hard", clone_accuracy=0.25))


def of(policy: str, *rows: AttackRow) -> tuple[AttackRow, ...]:
    return tuple(dataclasses.replace(row, policy=policy) for row in rows)


def test_a_policy_that_returns_labels_only_has_a_gap_of_zero() -> None:
    label = lines(*KNOCKOFF, *DFME, *of("label", KNOCKOFF[1], DFME[1]))["label"]
    assert (label.gap_vs_top1, label.gap_by_thief) == (0, 0)


def test_the_gap_is_between_the_best_and_the_gap_by_attacker_holds_each_against_itself() -> None:
    fends_off_knockoff = (attack_row(policy="p", clone_accuracy=0.5), attack_row(policy="p", labels="hard"))
    hard = dataclasses.replace(fends_off_knockoff[1], clone_accuracy=0.4)
    line = lines(*KNOCKOFF, *DFME, fends_off_knockoff[0], hard, *of("p", *DFME))["p"]
    # .80 by Knockoff from labels - .70 by DFME
    assert line.gap_vs_top1 == pytest.approx(0.10)
    assert {duel.attack: round(duel.gap, 6) for duel in line.duels} == {"knockoff": 0.30, "dfme": -0.45}
    assert line.gap_by_thief == pytest.approx(-0.45)
    assert line.worst is not None
    assert (line.worst.attack, line.worst.best.labels) == ("dfme", "soft")


def test_both_sides_are_compared_at_the_largest_budget_they_share() -> None:
    robbed_of_less = attack_row(policy="p", labels="hard", budget=1000, clone_accuracy=0.60)
    early = attack_row(labels="hard", budget=1000, clone_accuracy=0.65)
    assert lines(*KNOCKOFF, early, robbed_of_less)["p"].gap_vs_top1 == pytest.approx(0.05)
    assert lines(*KNOCKOFF, robbed_of_less)["p"].gap_vs_top1 is None


def test_attackers_not_measured_on_the_policy_do_not_make_it_look_better() -> None:
    assert lines(*KNOCKOFF, *DFME, *of("p", DFME[1]))["p"].gap_vs_top1 == 0


def test_an_attacker_not_measured_on_undefended_counts_against_the_policy() -> None:
    averaging = attack_row(policy="p", adaptive="averaging", clone_accuracy=0.75)
    hard = attack_row(policy="p", labels="hard", clone_accuracy=0.40)
    assert lines(*KNOCKOFF, hard, averaging)["p"].gap_vs_top1 == pytest.approx(0.05)


@pytest.mark.parametrize(("labels", "complete"), [(("soft", "hard"), True), (("hard",), True), (("soft",), False)])
def test_a_duel_says_whether_labels_only_was_tried(labels: tuple[str, ...], complete: bool) -> None:
    line = lines(*KNOCKOFF, *(attack_row(policy="p", labels=each) for each in labels))["p"]
    assert [duel.complete for duel in line.duels] == [complete]


def test_a_cell_reports_every_recipe_and_the_chosen_ones_queries() -> None:
    loses = attack_row(clone_recipe="adamw", clone_accuracy=0.97, held_out=0.4)
    seeds = [
        attack_row(seed=seed, clone_accuracy=accuracy, agreement=accuracy, rejected=seed, no_query_accuracy=0.1)
        for seed, accuracy in enumerate((0.88, 0.92))
    ]
    (cell,) = cells([loses, *seeds])
    assert [(each.recipe, each.accuracy, each.held_out) for each in cell.tried] == [
        ("sgd", pytest.approx(0.90), 0.5),
        ("adamw", 0.97, 0.4),
    ]
    assert (cell.agreement, cell.normalised) == (pytest.approx(0.90), pytest.approx(0.90 / 0.99))
    assert (cell.queries, cell.rejected, cell.no_query) == (4000, 1, pytest.approx(0.1))
    assert cell.hindsight == 0.97


def test_utility_stands_next_to_it() -> None:
    assert (LINES["edm"].accuracy, LINES["edm"].accuracy_drop) == (0.985, 0.005)
    assert LINES["weak"].accuracy is None


def test_without_an_undefended_clone_there_is_no_gap() -> None:
    lines = headline(synthetic.report(attacks=(attack_row(policy="edm"),)))
    assert [(line.policy, line.gap_vs_top1) for line in lines] == [("undefended", None), ("edm", None)]


def test_an_adaptive_form_is_an_attack_of_its_own() -> None:
    rows = [attack_row(clone_accuracy=0.5), attack_row(adaptive="average-5", clone_accuracy=0.7)]
    assert [(cell.attack, cell.accuracy) for cell in cells(rows)] == [("knockoff", 0.5), ("knockoff (average-5)", 0.7)]
    best = headline(synthetic.report(attacks=tuple(rows)))[0].best
    assert best is not None
    assert best.accuracy == 0.7
