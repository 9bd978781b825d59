"""The page of the fortress: the worst attacker of each kind, whom the whole left without a clone, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from report.pages import fortress as document
from report.rows.clones import AttackRow
from report.rows.policies import PolicyRow
from report.schema import Report, ResultError, write
from tests.report.synthetic import RUN, attack_row

VERSIONS = {"python": "3.11", "torch": "2", "onnxruntime": "1"}


def clone(policy: str, attack: str, accuracy: float, **changes: Any) -> AttackRow:
    plain = {"no_query_accuracy": 0.1, "budget": 1000, "queries": 1000, "recipe": "mnist", "rejected": 0}
    return attack_row(policy=policy, attack=attack, clone_accuracy=accuracy, **{**plain, **changes})


def cost(policy: str, drop: float) -> PolicyRow:
    return PolicyRow("mnist", policy, 0.98 - drop, drop, 0.0, None, None, 0.9, 0.01, 3.0)


def report(*more: AttackRow, drop: float = 0.004) -> Report:
    owned = {"no_query_accuracy": 0.9}
    rows = [
        clone("undefended", "knockoff", 0.9),
        clone("undefended", "knockoff", 0.7, labels="hard"),
        clone("undefended", "knockoff", 0.6, adaptive="unexplained", clone_recipe="unexplained"),
        clone("decoys", "knockoff", 0.3),
        clone("fortress", "knockoff", 0.14),
        clone("fortress", "knockoff", 0.12, labels="hard"),
        clone("fortress", "knockoff", 0.26, labels="hard", adaptive="unexplained", clone_recipe="unexplained"),
        clone("undefended", "augmented-seeds", 0.94, **owned),
        clone("undefended", "augmented-seeds", 0.92, labels="hard", **owned),
        clone("fortress", "augmented-seeds", 0.91, labels="hard", **owned),
        *more,
    ]
    run = RUN.__class__(**{**vars(RUN), "versions": VERSIONS})
    return Report(run, attacks=tuple(rows), policies=(cost("undefended", 0.0), cost("fortress", drop)))


def test_an_attacker_is_compared_with_the_best_undefended_clone_of_its_images() -> None:
    study = document.Study(report())
    worst = study.worst("fortress", document.STRANGER)
    assert worst.attacker is not None
    # of one attack, a recipe apart is an attacker of its own, and both lack what the plain clone of probabilities has
    assert worst.attacker.reference.accuracy == 0.9
    assert (worst.met, worst.cloned, worst.attacker.name) == (2, 2, "knockoff (unexplained)")
    assert worst.attacker.share("fortress") == pytest.approx(0.2)
    owner = study.worst("fortress", document.OWNER, "hard")
    assert owner.attacker is not None
    assert owner.attacker.share("fortress") == pytest.approx(0.25)


def test_what_does_not_hold_comes_first() -> None:
    text = document.render([document.Study(report(drop=0.03))])
    lines = [line for line in text.splitlines() if line[:2] in ("1.", "2.", "3.", "4.")]
    assert lines[0].startswith("1. **Does not hold**: mnist: ")
    assert any("`fortress` costs 3.00 points of accuracy and refuses 0.0 %" in line for line in lines)
    assert "**Does not hold**: mnist: `fortress`" not in document.render([document.Study(report())])


def test_attackers_whom_the_budget_left_without_a_clone_are_counted() -> None:
    text = document.render([document.Study(report())])
    assert "attackers with one account, 0 got enough answers of `fortress-strict` for a clone" in text
    one = clone("fortress-strict", "augmented-seeds", 0.9, labels="hard", no_query_accuracy=0.9)
    study = document.Study(report(one))
    assert study.worst("fortress-strict", document.OWNER, "hard").cloned == 1
    row = next(
        line
        for line in document.render([study]).splitlines()
        if line.startswith("| gate, decoys, labels and budget, all ref")
    )
    assert "| - | augmented-seeds: 90.0 %" in row
    assert "augmented-seeds: 90.0 %" in row


def test_a_composition_that_was_not_measured_is_a_dash() -> None:
    study = document.Study(report())
    worst = study.worst("same-reject", document.STRANGER, "soft")
    assert worst.text == "-"
    assert study.figure.startswith("<svg")


def test_kinds_go_by_what_an_attacker_owns() -> None:
    kinds = [
        document.kind_of(name) for name in ("knockoff (unexplained)", "mixed (matched)", "in-distribution", "dfme")
    ]
    assert kinds == [document.STRANGER, document.OWNER, document.INSIDER, document.STRANGER]


def test_a_folder_without_a_measurement_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no fortress-\*\.json; make reproduce-fortress"):
        document.found(tmp_path)
    whole = report()
    only = tuple(row for row in whole.attacks if row.policy == "undefended")
    write(tmp_path / "fortress-mnist.json", Report(whole.run, attacks=only))
    with pytest.raises(ResultError, match="expected attackers of `undefended` and `fortress`, got none"):
        document.found(tmp_path)
