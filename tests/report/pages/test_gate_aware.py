"""The page of attackers who know the gate: what it opens with, the order of its table, and what it cannot say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from report.pages import gate_aware as document
from report.rows.clones import AgreementRow, AttackRow
from report.schema import Report, ResultError, write
from tests.report.synthetic import RUN, attack_row

VERSIONS = {"python": "3.11", "torch": "2", "onnxruntime": "1"}


def clone(policy: str, attack: str, accuracy: float, *, rejected: int = 0, **changes: Any) -> AttackRow:
    plain = {"no_query_accuracy": 0.8, "budget": 1000, "queries": 1000, "recipe": "mnist"}
    return attack_row(policy=policy, attack=attack, clone_accuracy=accuracy, rejected=rejected, **{**plain, **changes})


def report(*more: AttackRow) -> Report:
    rows = [
        clone("undefended", "augmented-seeds", 0.9),
        clone("undefended", "augmented-seeds", 0.92, seed=1),
        clone("same-reject", "augmented-seeds", 0.8, rejected=700),
        clone("same-reject", "augmented-seeds", 0.8, rejected=700, seed=1),
        clone("undefended", "augmented-seeds", 0.9, adaptive="matched"),
        clone("same-reject", "augmented-seeds", 0.88, rejected=50, adaptive="matched"),
        clone("undefended", "in-distribution", 0.98, no_query_accuracy=0.1),
        clone("same-reject", "in-distribution", 0.97, no_query_accuracy=0.1),
        *more,
    ]
    run = RUN.__class__(**{**vars(RUN), "versions": VERSIONS})
    agreement = AgreementRow(
        "mnist",
        "same-reject",
        "augmented-seeds",
        "matched",
        "soft",
        1000,
        "adamw",
        0,
        10,
        1.0,
        0,
        0.0,
        0.88,
        0.87,
        0.02,
    )
    return Report(run, attacks=tuple(rows), agreement=(agreement,))


def test_the_page_opens_with_the_attacker_who_bought_most_behind_the_gate() -> None:
    text = document.render([document.study(report())])
    lines = text.splitlines()
    assert lines[3].startswith("**mnist: an attacker who knows the gate gets 88.0 % behind `same-reject`**")
    assert "(augmented-seeds (matched), probabilities): 5.0 % of its" in lines[3]
    assert "80.0 % is what it could train without one" in lines[4]
    assert "**0.80**" in lines[5]
    table = [line for line in lines if line.startswith(("| augmented-seeds", "| in-distribution"))]
    names = [line.split(" | ")[0] for line in table]
    assert names == ["| in-distribution", "| augmented-seeds (matched)", "| augmented-seeds"]
    assert "**80.0 ± 0.0 %** | 70.0 % | 0.00 ± 0.00 | 2 |" in table[2]
    assert "| augmented-seeds (matched) | soft | 1\u202f000 | 10 | 100.0 % | 0 | 0.0e+00 | 88.0 % | 87.0 % |" in text


def test_an_attacker_without_an_undefended_row_is_left_out() -> None:
    found = document.study(report(clone("same-reject", "near", 0.99)))
    assert "near" not in [thief.name for thief in found.thieves]


def test_the_picture_shows_every_attacker_of_probabilities() -> None:
    found = document.study(report(clone("undefended", "near", 0.9, labels="hard")))
    assert found.picture == "gate-aware-mnist.svg"
    assert found.figure.startswith("<svg")


def test_an_attacker_whom_every_gate_refused_is_named() -> None:
    found = document.study(report(clone("undefended", "knockoff", 0.95), clone("undefended", "near", 0.9)))
    assert found.unanswered == ("knockoff", "near")
    assert "No gate returned enough responses to train a clone on to: **knockoff, near**." in document.render([found])
    assert document.study(report()).unanswered == ()


def test_a_folder_without_a_measurement_or_with_customers_alone_is_said(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no gate-aware-\*\.json; make reproduce-gate-aware"):
        document.found(tmp_path)
    whole = report()
    only = tuple(row for row in whole.attacks if row.attack == "in-distribution")
    write(tmp_path / "gate-aware-mnist.json", Report(whole.run, attacks=only))
    with pytest.raises(ResultError, match="other than in-distribution, got none"):
        document.found(tmp_path)
