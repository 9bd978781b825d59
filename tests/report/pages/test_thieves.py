"""The attackers' page from synthetic results: its numbers can be worked out by hand, and what is missing shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from attacks import names
from report.analysis.literature import Target, Verdict
from report.figures.heat_map import heat_map
from report.headline import cells
from report.pages import thieves
from report.pages.thieves import Thieves
from report.rows.attack_speeds import AttackSpeedRow
from report.rows.clones import AgreementRow, AttackRow
from report.schema import Report, ResultError, write
from tests.report import synthetic
from tests.report.pages.reading import answer, check, lines
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
    # keeps the label and shows nothing else
    ("label", "knockoff", None, "hard", 50_000): 0.80,
    # keeps the label, shows more
    ("mad", "knockoff", None, "soft", 50_000): 0.86,
    ("mad", "knockoff", None, "hard", 50_000): 0.80,
    # really defends, but against the averaging attacker and the one who needs probabilities
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


STUDY = Thieves("mnist", results())


def page(**changes: Any) -> str:
    return thieves.render([Thieves("mnist", results(**changes))])


def test_policies_that_add_nothing_open_the_page() -> None:
    text = page()
    check(text)
    # .80 from labels alone, by Knockoff, less the best clone of the policy
    assert answer(text)[0] == (
        "**Does not hold**: mnist, against all attackers, in points added to hiding probabilities: `mad` -6.0; "
        "`label` +0.0; `edm` +15.0."
    )
    assert "**Does not hold**: mnist: 1 of 3 attackers are weaker than the literature's." in answer(text)


@pytest.mark.parametrize(
    ("policy", "gap", "by_attacker"),
    [
        ("undefended", "-14.0", "-59.0"),  # .80 - .94; DFME .20 - .79
        ("label", "+0.0", "+0.0"),
        ("mad", "-6.0", "-6.0"),  # .80 - .86
        ("edm", "+15.0", "-10.0"),  # .80 - .65; DFME .20 - .30, where averaging has .75 - .65
    ],
)
def test_the_headline(policy: str, gap: str, by_attacker: str) -> None:
    (row,) = lines(page(), f"| mnist | {policy} | **{gap}** |")
    assert f"| {by_attacker} |" in row
    assert "| 80.0 ± 1.4 % |" in row


def test_the_worst_policy_leads_and_its_attacker_is_named() -> None:
    text = page()
    order = [line.split(" | ")[1] for line in lines(text, "| mnist | ", "| **")][:4]
    assert order == ["undefended", "mad", "label", "edm"]
    # .65 / .98
    assert lines(text, "| edm | **+15.0** |", "| knockoff (averaging), soft, 50\u202f000 | 0.66 |")


def test_attackers_without_images_of_the_task_have_columns_of_their_own() -> None:
    known = tuple(
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
    )
    study = Thieves("mnist", results(attacks=(*rows(), *known)))
    gap = {line.policy: line.gap_vs_top1 for line in study.lines}
    assert gap["edm"] == pytest.approx(-0.01)
    assert study.without_data["edm"].gap_vs_top1 == pytest.approx(0.15)
    (row,) = lines(thieves.render([study]), "| edm | **≤ -1.0** |")
    assert row.endswith("| +15.0 | 65.0 ± 1.4 % | knockoff (averaging), soft, 50\u202f000 |")
    assert STUDY.without_data == {}


def test_a_policy_that_was_attacked_by_soft_clones_alone_is_bounded() -> None:
    soft = tuple(row for row in rows() if row.policy != "mad" or row.labels == "soft")
    assert lines(page(attacks=soft), "| mad | **≤ -6.0** |")


def test_what_users_pay() -> None:
    assert lines(page(), "| mnist | edm | 98.00 | 1.00 | 2.0 % | 0.0500 |")
    assert lines(page(), "| mnist | label | 99.00 | 0.00 | 0.0 % | - |")


def test_every_attacker_stands_in_the_matrix_what_is_missing_too() -> None:
    text = page()
    assert lines(text, "| attacker | labels | queries | undefended | edm | label | mad |")
    assert lines(text, "| knockoff | soft | 50\u202f000 | 94.0 ± 1.4 | 50.0 ± 1.4 | n/a | 86.0 ± 1.4 |")
    assert lines(text, "| knockoff (averaging) | soft | 50\u202f000 | - | 65.0 ± 1.4 | n/a | - |")
    fewer = tuple(row for row in rows() if (row.policy, row.labels, row.budget) != ("edm", "soft", 50_000))
    assert lines(page(attacks=fewer), "| knockoff | soft | 50\u202f000 |", "| 45.0 ± 1.4 (10k) |")


def test_the_heat_map_knows_what_was_measured_what_was_not_and_what_cannot_be() -> None:
    heat = STUDY.heat()
    soft, hard = heat["panels"]["soft labels"], heat["panels"]["hard labels"]
    assert heat["rows"] == ["in-distribution, 600", "knockoff, 50k", "knockoff (averaging), 50k", "dfme, 300k"]
    assert heat["columns"] == ["undefended", "edm", "label", "mad"]
    assert soft["knockoff, 50k", "edm"] == (pytest.approx(0.50), "")
    assert hard["dfme, 300k", "edm"] == (pytest.approx(0.15), "")
    assert ("soft labels", "dfme, 300k", "label") in heat["void"]
    assert ("soft labels", "dfme, 300k", "mad") not in heat["void"]
    svg = heat_map(**heat)
    assert 'id="not-measured-soft-labels-dfme,-300k-mad"' in svg
    assert 'id="not-measured-soft-labels-dfme,-300k-label"' not in svg
    assert "<!-- 65.0 -->" in svg


def test_an_attack_that_reads_labels_alone_has_no_soft_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.ATTACKS, "dfme", ("hard",))
    assert not STUDY.applies("edm", "dfme", None, "soft")
    assert STUDY.applies("edm", "dfme", None, "hard")


def test_the_literature_next_to_what_was_seen() -> None:
    text = page()
    assert lines(text, "| knockoff | soft | 50\u202f000 | 90 |", "| 94.0 ± 1.4 % | 50\u202f000 | yes |")
    assert lines(text, "| dfme | soft | 300\u202f000 | 84 |", "| 79.0 ± 1.4 % | 300\u202f000 | **no** |")
    assert lines(text, "| in-distribution | soft | 1\u202f000 | 94 |", "| 90.0 ± 1.4 % | 600 | open: fewer queries")
    assert lines(text, "| jbda | soft |", "| - | - | not measured |")
    run = dataclasses.replace(synthetic.RUN, settings={**SETTINGS, "dataset": {"name": "digits"}})
    assert not lines(page(run=run), "EDM, Table 3")


@pytest.mark.parametrize(("accuracy", "met"), [(0.8699, "**no**"), (0.87, "yes"), (0.93, "yes")])
def test_met_from_three_points_below_upward(accuracy: float, met: str) -> None:
    (cell,) = cells([attack_row(budget=50_000, clone_accuracy=accuracy)])
    assert str(Verdict(Target("knockoff", "soft", 50_000, 90, "a paper"), cell)) == met


def test_clones_over_http_impact_on_users_and_speeds_have_their_tables() -> None:
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
    impact = (synthetic.felt_row(), synthetic.felt_row(stretch="during", p50_ms=45.0))
    slow = AttackSpeedRow("mnist", "undefended", "dfme", "lenet5", 2, 0, 1000, 1.0, 1.0, 0.0, None)
    text = thieves.render([Thieves("mnist", results(agreement=(row,), felt=impact))], [slow])
    check(text)
    (line,) = lines(text, "2.0e-07")
    assert line.endswith("| 50.0 % | 45.0 % | ± 2.0 | **no** |")
    assert [len(lines(text, stretch, "4\u202f000")) for stretch in ("| before |", "| during |")] == [1, 1]
    assert lines(text, "**Does not hold**: mnist: 1 of 1 clones differ over HTTP")
    assert lines(text, "**Does not hold**: DFME makes 1000 queries a second in process; 1500 was asked.")


def test_a_form_with_any_number_of_copies_was_run() -> None:
    repeated = attack_row(recipe="mnist", policy="edm", attack="knockoff", adaptive="repeats-16")
    study = Thieves("mnist", results(attacks=(*rows(), repeated)))
    assert "repeats" in STUDY.not_run
    assert "repeats" not in study.not_run
    assert {"jittered", "own-noise", "maze"} <= set(study.not_run)


def test_the_run_is_stated_and_where_every_row_is() -> None:
    text = page()
    (row,) = lines(text, "| mnist | mnist | cpu |")
    assert f"| {len(rows())} | attacker 0, clones 0, 1 | 2026-01-02 | 0123456789ab | Linux x86_64, 2 CPUs," in row
    assert row.endswith("| `make reproduce-thieves RECIPE=mnist` |")
    assert "`python -m report.html results/thieves-mnist.json --output /tmp/x.html`" in text


def test_informed_attackers_open_the_page_where_they_were_measured(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no thieves-\*\.json; make reproduce-thieves RECIPE=mnist measures one"):
        thieves.pages(tmp_path)
    write(tmp_path / "thieves-mnist.json", results())
    # a second key alone is not yet a measurement
    write(tmp_path / "unmixing-mnist-second-key.json", unmixing_report())
    assert "read these lines first" not in thieves.pages(tmp_path)["results/thieves.md"]
    write(tmp_path / "unmixing-mnist.json", unmixing_report())
    write(tmp_path / "gate-aware-mnist.json", gate_report())
    made = thieves.pages(tmp_path)
    assert sorted(made) == ["results/thieves.md", "results/thieves.svg"]
    text = made["results/thieves.md"]
    assert text.index("read these lines first") < text.index("in points added")
    assert lines(text, "gets a clone of **91.0 ± 1.4 %**")


def test_a_file_without_clones_is_an_error() -> None:
    with pytest.raises(ResultError, match="mnist: no attacks; make some with `make reproduce-thieves RECIPE=mnist`"):
        page(attacks=())
