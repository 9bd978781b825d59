"""The thieves' page from made-up results: its numbers can be worked out by hand, and what is missing shows."""

from __future__ import annotations

import dataclasses
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from attacks import names
from report.atomic import write_json
from report.headline import cells
from report.pages import thieves
from report.pages.thieves import Study, Target, Verdict
from report.rows.clones import AgreementRow, AttackRow
from report.schema import Report, ResultError, write
from tests.report import synthetic
from tests.report.pages.test_gate_aware import report as gate_report
from tests.report.pages.test_unmixing import report as unmixing_report
from tests.report.synthetic import attack_row, policy_row

SETTINGS = {
    "dataset": {"name": "mnist"},
    "classes": 10,
    "attacks.knockoff": {"surrogate": "fashionmnist", "budget": 50_000},
    "clone": {"architecture": "conv3", "epochs": 8},
}
# (policy, attack, form, labels, budget): clone accuracy
CLONES = {
    ("undefended", "knockoff", None, "soft", 10_000): 0.90,
    ("undefended", "knockoff", None, "soft", 50_000): 0.94,
    ("undefended", "knockoff", None, "hard", 10_000): 0.70,
    ("undefended", "knockoff", None, "hard", 50_000): 0.80,
    ("undefended", "knockoff", "averaging", "hard", 50_000): 0.75,
    ("undefended", "dfme", None, "soft", 300_000): 0.79,
    ("undefended", "dfme", None, "hard", 300_000): 0.20,
    ("undefended", "in-distribution", None, "soft", 600): 0.90,
    # keeps the label and tells nothing else
    ("label", "knockoff", None, "hard", 50_000): 0.80,
    # keeps the label, tells more
    ("mad", "knockoff", None, "soft", 50_000): 0.86,
    ("mad", "knockoff", None, "hard", 50_000): 0.80,
    # really defends, but against the averaging thief and the one who needs probabilities
    ("edm", "knockoff", None, "soft", 10_000): 0.45,
    ("edm", "knockoff", None, "soft", 50_000): 0.50,
    ("edm", "knockoff", None, "hard", 50_000): 0.40,
    ("edm", "knockoff", "averaging", "soft", 50_000): 0.65,
    ("edm", "dfme", None, "soft", 300_000): 0.30,
    ("edm", "dfme", None, "hard", 300_000): 0.15,
}


def rows() -> tuple[AttackRow, ...]:
    """Two seeds, a point above and below; a losing recipe five points lower that agrees less."""
    return tuple(
        attack_row(
            recipe="mnist",
            policy=policy,
            attack=attack,
            adaptive=form,
            labels=labels,
            budget=budget,
            queries=budget,
            seed=seed,
            clone_recipe=recipe,
            clone_accuracy=accuracy + off - lost,
            held_out=0.85 - lost,
            no_query_accuracy=0.1,
            victim_accuracy=0.98 if policy == "edm" else 0.99,
        )
        for (policy, attack, form, labels, budget), accuracy in CLONES.items()
        for recipe, lost in (("sgd", 0.05), ("adamw", 0.0))
        for seed, off in ((0, 0.01), (1, -0.01))
    )


def results(**changes: Any) -> Report:
    sections: dict[str, Any] = {
        "run": dataclasses.replace(synthetic.RUN, settings=SETTINGS),
        "attacks": rows(),
        "policies": (
            policy_row(recipe="mnist"),
            policy_row(recipe="mnist", policy="label", l1=None, ece=None),
            policy_row(recipe="mnist", policy="mad", l1=0.9, forward_passes=2.0),
            policy_row(recipe="mnist", policy="edm", accuracy=0.98, accuracy_drop=0.01, label_flips=0.02, l1=0.05),
        ),
    }
    return Report(**{**sections, **changes})


STUDY = Study("mnist", results())


@cache
def the_text() -> str:
    return thieves.render([STUDY])


def lines(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


@pytest.mark.parametrize(
    ("policy", "gap", "by_thief"),
    [
        # .80 from labels alone, by Knockoff; the best of the policy; the worst thief against itself
        ("undefended", "-14.0", "-59.0"),  # .80 - .94; DFME .20 - .79
        ("label", "+0.0", "+0.0"),
        ("mad", "-6.0", "-6.0"),  # .80 - .86
        ("edm", "+15.0", "-10.0"),  # .80 - .65; DFME .20 - .30, where averaging has .75 - .65
    ],
)
def test_the_headline(policy: str, gap: str, by_thief: str) -> None:
    (row,) = lines(the_text(), f"| {policy} | **{gap}** |")
    assert f"| {by_thief} |" in row
    assert "80.0 ± 1.4 % (n = 2)" in row


def test_thieves_without_images_of_the_task_have_a_headline_of_their_own() -> None:
    known = [
        attack_row(
            recipe="mnist",
            policy=policy,
            attack="in-distribution",
            labels=labels,
            budget=600,
            clone_accuracy=accuracy,
            no_query_accuracy=0.9,
        )
        for policy, labels, accuracy in (("undefended", "hard", 0.96), ("edm", "soft", 0.97))
    ]
    study = Study("mnist", results(attacks=(*rows(), *known)))
    gap = {line.policy: line.gap_vs_top1 for line in study.lines}
    bare = {line.policy: line.gap_vs_top1 for line in study.without_data}
    assert gap["edm"] == pytest.approx(-0.01)
    assert bare["edm"] == pytest.approx(0.15)
    assert "no labelled image of the task" in thieves.render([study])
    assert Study("mnist", results()).without_data == []


def test_thefts_over_http_and_what_benign_users_felt_have_their_tables() -> None:
    row = AgreementRow(
        recipe="mnist",
        policy="edm",
        attack="knockoff",
        adaptive=None,
        labels="soft",
        budget=10_000,
        clone_recipe="adamw",
        seed=1,
        clients=10,
        same_images=1.0,
        label_differences=0,
        largest_difference=2e-7,
        in_process=0.5,
        over_http=0.45,
        allowed=0.02,
    )
    felt = (synthetic.felt_row(), synthetic.felt_row(stretch="during", p50_ms=45.0))
    page = thieves.render([Study("mnist", results(agreement=(row,), felt=felt))])
    (line,) = lines(page, "adamw, 1")
    assert line.split(" | ")[6:] == ["100.0 %", "0", "2.0e-07", "50.0 %", "45.0 %", "± 2.0", "**no** |"]
    assert [len(lines(page, stretch, "4\u202f000")) for stretch in ("| before |", "| during |")] == [1, 1]


def test_a_clone_of_its_own_is_told_beside_the_usual_one() -> None:
    tables = {
        "evaluate.plain": {"attacks": ("knockoff",), "clone": {"recipes": ["sgd"]}, "called": None},
        "evaluate.wide": {"attacks": ("knockoff",), "clone": {"options": {"width": 2}}, "called": "larger-clone"},
    }
    run = dataclasses.replace(synthetic.RUN, settings={**SETTINGS, **tables})
    assert Study("mnist", results(run=run)).exceptions == [("knockoff (larger-clone)", 'options {"width": 2}')]


def test_the_headline_names_the_thief_and_the_share_of_the_policys_own_accuracy() -> None:
    (row,) = lines(the_text(), "| edm | **+15.0**")
    # .65 / .98
    assert "| knockoff (averaging), soft, 50\u202f000, adamw, n = 2 | 0.66 |" in row


def test_what_users_pay_stands_beside_it() -> None:
    assert lines(the_text(), "| edm | 98.0 % | +1.0 | 2.0 % | 0.050 | 1 |")
    assert lines(the_text(), "| label | 99.0 % | +0.0 | 0.0 % | - | 1 |")


def test_a_policy_that_was_robbed_by_soft_clones_alone_is_bounded() -> None:
    soft = tuple(row for row in rows() if row.policy != "mad" or row.labels == "soft")
    assert lines(thieves.render([Study("mnist", results(attacks=soft))]), "| mad | **≤ -6.0** |")


def test_the_heat_map_knows_what_was_measured_what_was_not_and_what_cannot_be() -> None:
    heat = STUDY.heat()
    soft, hard = heat["panels"]["soft labels"], heat["panels"]["hard labels"]
    assert heat["rows"] == ["in-distribution, 600", "knockoff, 50k", "knockoff (averaging), 50k", "dfme, 300k"]
    assert heat["columns"] == ["undefended", "edm", "label", "mad"]
    assert soft["knockoff, 50k", "edm"] == (pytest.approx(0.50), "")
    assert hard["dfme, 300k", "edm"] == (pytest.approx(0.15), "")
    assert ("dfme, 300k", "mad") not in soft
    assert heat["void"] == {("soft labels", row, "label") for row in heat["rows"]}


def test_a_smaller_budget_than_others_had_stands_in_the_square() -> None:
    fewer = tuple(row for row in rows() if (row.policy, row.labels, row.budget) != ("edm", "soft", 50_000))
    panels = Study("mnist", results(attacks=fewer)).heat()["panels"]
    assert panels["soft labels"]["knockoff, 50k", "edm"] == (pytest.approx(0.45), "at 10k")


def test_missing_squares_are_hatched_in_the_figure_and_named_on_the_page() -> None:
    svg = thieves.plot([STUDY])["thieves-mnist-heat-map.svg"]
    # 4 thieves x 4 policies; soft: 7 measured, label's 4 have nothing to measure; hard: 7 measured
    assert svg.count('id="not-measured-soft-labels') == 16 - 7 - 4
    assert svg.count('id="not-measured-hard-labels') == 16 - 7
    assert "<!-- 65.0 -->" in svg
    assert lines(the_text(), "| dfme | soft | mad |")
    assert lines(the_text(), "| in-distribution | soft | edm, mad |")


def test_an_attack_that_reads_labels_alone_has_no_soft_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.ATTACKS, "dfme", ("hard",))
    assert not STUDY.applies("edm", "dfme", None, "soft")
    assert STUDY.applies("edm", "dfme", None, "hard")
    assert ("soft labels", "dfme, 300k", "mad") in STUDY.heat()["void"]


def test_the_literature_beside_what_was_seen() -> None:
    (soft,) = lines(the_text(), "| knockoff | soft | 50\u202f000 | 90 |")
    assert soft.endswith("| 87 | 94.0 ± 1.4 % | 50\u202f000 | 2 | yes, stronger than the literature |")
    (dfme,) = lines(the_text(), "| dfme | soft | 300\u202f000 | 84 to 87 |")
    assert dfme.endswith("| 81 | 79.0 ± 1.4 % | 300\u202f000 | 2 | **no** |")
    (few,) = lines(the_text(), "| in-distribution | soft | 1\u202f000 | 94 |")
    assert few.endswith("| 91 | 90.0 ± 1.4 % | 600 | 2 | open: fewer queries than the literature's |")
    (jbda,) = lines(the_text(), "| jbda | soft |")
    assert jbda.endswith("| - | - | - | not measured |")


@pytest.mark.parametrize(
    ("accuracy", "met"),
    [
        (0.8699, "**no**"),
        (0.87, "yes"),
        (0.90, "yes"),
        (0.93, "yes"),
        (0.9301, "yes, stronger than the literature"),
    ],
)
def test_met_from_three_points_below_upward(accuracy: float, met: str) -> None:
    (cell,) = cells([attack_row(budget=50_000, clone_accuracy=accuracy)])
    assert str(Verdict(Target("knockoff", "soft", 50_000, 90, "90", "a paper"), cell)) == met


def test_only_a_missed_target_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(the_text(), "- dfme, soft labels: its curve above")
    assert not lines(the_text(), "- knockoff, soft labels:")
    explained = tuple(dataclasses.replace(target, why=f"{target.attack} is slow.") for target in thieves.TARGETS)
    monkeypatch.setattr(thieves, "TARGETS", explained)
    text = thieves.render([STUDY])
    assert lines(text, "- dfme, soft labels: dfme is slow.")
    assert "knockoff is slow" not in text


def test_another_data_set_has_no_targets() -> None:
    run = dataclasses.replace(synthetic.RUN, settings={**SETTINGS, "dataset": {"name": "digits"}})
    assert "against the literature" not in thieves.render([Study("digits", results(run=run))])


def test_adaptive_forms_stand_beside_the_plain_attack_at_equal_charge() -> None:
    (soft,) = lines(the_text(), "| knockoff | averaging | soft | 50\u202f000 |")
    assert soft.endswith("| 94.0 ± 1.4 % → - | 50.0 ± 1.4 % → 65.0 ± 1.4 % | - | 86.0 ± 1.4 % → - |")


def test_the_averaging_thief_beside_the_papers() -> None:
    (edm,) = lines(the_text(), "| edm | soft | 10\u202f000 | 45.0 ± 1.4 % | 65.0 ± 1.4 % (50\u202f000) | +20.0 |")
    assert edm.endswith("| 50.0 ± 1.4 % | +15.0 | 51.34 → 72.0 |")
    (other,) = lines(the_text(), "| undefended | hard | 10\u202f000 | 70.0 ± 1.4 % | 75.0 ± 1.4 %")
    assert other.endswith("| +5.0 | 80.0 ± 1.4 % | -5.0 | - |")


def test_losing_recipes_and_smaller_budgets_are_printed() -> None:
    (largest,) = lines(the_text(), "| edm | hard | 50\u202f000 | 50\u202f000 | 0 | 40.0 ± 1.4 % | 2 |")
    assert largest.endswith("| 0.41 | 90.0 % | 10.0 % | **adamw** (85.0 %), sgd 35.0 ± 1.4 (80.0 %) |")
    smaller = the_text().split("<summary>Smaller budgets</summary>")[1].split("</details>")[0]
    assert lines(smaller, "| edm | soft | 10\u202f000 |", "45.0 ± 1.4 %")
    assert not lines(smaller, "| edm | soft | 50\u202f000 |")


def test_every_clone_of_the_report_is_on_the_page() -> None:
    (tables,) = re.findall(r"## mnist: adaptive forms.*## mnist: parameters", the_text(), re.DOTALL)
    printed = [line for line in tables.splitlines() if "**adamw** (" in line]
    assert len(printed) == len(CLONES)


def test_a_form_with_any_number_of_copies_was_run() -> None:
    repeated = attack_row(recipe="mnist", policy="edm", attack="knockoff", adaptive="repeats-16")
    study = Study("mnist", results(attacks=(*rows(), repeated)))
    assert "repeats" in Study("mnist", results()).not_run
    assert "repeats" not in study.not_run
    assert {"jittered", "own-noise", "maze"} <= set(study.not_run)


def test_growth_has_the_policies_of_every_attack_and_its_baseline() -> None:
    growth = STUDY.growth()
    assert list(growth["attacks"]) == ["in-distribution", "knockoff", "dfme"]
    assert [list(policies) for policies in growth["attacks"].values()] == [STUDY.policies] * 3
    assert [cell.budget for cell in growth["attacks"]["knockoff"]["edm"]] == [50_000, 10_000, 50_000]
    assert (growth["chance"], growth["victim"]) == (0.1, 0.99)
    assert growth["no_query"] == {name: pytest.approx(0.1) for name in growth["attacks"]}


def test_the_run_is_stated() -> None:
    (row,) = lines(the_text(), "| mnist | mnist | cpu |")
    assert (
        f"| {len(rows())} | thieves 0, clones 0, 1 | 2026-01-02 | 0123456789ab | Linux x86_64, 2 CPUs, Example CPU |"
        in row
    )
    assert "python 3.11.7, torch 2.15.0" in row
    assert lines(the_text(), '| knockoff | surrogate "fashionmnist", budget 50000 |')
    assert lines(the_text(), "Made by `make thieves RECIPE=mnist`.")


def test_every_table_has_as_many_cells_in_a_line_as_in_its_head() -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", the_text(), re.MULTILINE)
    assert len(tables) >= 12
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
        assert len(table.splitlines()) > 2, table


def test_every_result_has_sections_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paper = tuple(dataclasses.replace(row, recipe="mnist-paper") for row in rows() if row.adaptive is None)
    write_json(tmp_path / "thieves-mnist-paper.json", dataclasses.asdict(results(attacks=paper)))
    write_json(tmp_path / "thieves-mnist.json", dataclasses.asdict(results()))
    output = tmp_path / "docs/thieves.md"
    monkeypatch.setattr(sys, "argv", ["thieves", "--results", str(tmp_path), "--output", str(output)])
    thieves.main()
    said = capsys.readouterr().out
    text = output.read_text("utf-8")
    assert text.index("## mnist: the headline") < text.index("## mnist-paper: the headline")
    assert lines(text, "| mnist-paper | mnist | paper |")
    assert lines(text, "Made by `make thieves RECIPE=mnist TIER=paper`.")
    assert lines(text, "None was measured.")
    figures = re.findall(r"\]\((.*\.svg)\)", text)
    assert len(figures) == 6
    for name in figures:
        assert (output.parent / name).read_text("utf-8").startswith("<svg")
        assert name in said
    assert sorted(path.name for path in output.parent.iterdir()) == sorted([*figures, "thieves.md"])


def test_without_labels_of_undefended_there_is_a_page_without_gaps() -> None:
    soft = (attack_row(recipe="mnist", policy="edm", labels="soft"),)
    study = Study("mnist", results(attacks=soft))
    text = thieves.render([study])
    assert lines(text, "| edm | **-** | - | 90.0 % (n = 1) |")
    assert sorted(thieves.plot([study])) == ["thieves-mnist-growth.svg", "thieves-mnist-heat-map.svg"]
    assert "thieves-mnist-gaps.svg" not in text


def test_no_results_say_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no thieves-\*\.json; make one with `make thieves RECIPE=mnist`"):
        thieves.load(tmp_path)
    write_json(tmp_path / "thieves-mnist.json", dataclasses.asdict(results(attacks=())))
    with pytest.raises(
        ResultError, match=r"thieves-mnist\.json: no attacks; make some with `make thieves RECIPE=mnist`"
    ):
        thieves.load(tmp_path)


def test_the_page_opens_with_ten_lines_of_thieves_who_have_read_the_papers(tmp_path: Path) -> None:
    studies = [Study("mnist", results())]
    assert thieves.informed(tmp_path) == (None, None)
    assert "read these lines first" not in thieves.render(studies)
    write(tmp_path / "unmixing-mnist.json", unmixing_report())
    edm, gate = thieves.informed(tmp_path)
    assert gate is None
    lines = thieves.render(studies, edm=edm).splitlines()
    assert lines[2].startswith("**If you serve EDM with probabilities today, read these lines first.**")
    numbered = [line for line in lines[:16] if line[:1].isdigit()]
    assert [int(line.split(".")[0]) for line in numbered] == list(range(1, 11))
    # 89.0 % from the undefended victim's labels, less the 91.0 % from EDM's probabilities
    assert "**-2.0 points**" in numbered[2]
    assert "**44.0 %**" in numbered[3]
    assert "not measured" in numbered[7]
    write(tmp_path / "gate-aware-mnist.json", gate_report())
    edm, gate = thieves.informed(tmp_path)
    assert gate is not None
    assert gate.both is None
