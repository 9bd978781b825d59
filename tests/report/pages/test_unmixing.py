"""The page of attackers who unmix: what it opens with, and the order of its table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from report.pages import unmixing as document
from report.rows.clones import AttackRow
from report.rows.run import RunInfo
from report.rows.training import TrainingRow
from report.schema import Report, ResultError, write

RUN = RunInfo(
    "abc",
    0,
    "Linux x86_64, 2 CPUs",
    "a CPU",
    None,
    {"python": "3.11", "torch": "2", "onnxruntime": "1"},
    "2026-01-01T00:00:00+00:00",
    1.0,
)
MEMBERS = TrainingRow(
    "mnist", "edm_fixed", 2, 0.3, 4, 10.0, "cpu", 0.98, 0.1, 0.3, leak=0.75, signatures=({"class": 3, "share": 0.78},)
)


def clone(policy: str, form: str | None, labels: str, accuracy: float, seed: int = 0) -> AttackRow:
    return AttackRow(
        recipe="mnist",
        policy=policy,
        attack="knockoff",
        adaptive=form,
        labels=labels,
        budget=10_000,
        seed=seed,
        clone_recipe="adamw",
        clone_accuracy=accuracy,
        agreement=accuracy,
        held_out=0.5,
        no_query_accuracy=None,
        victim_accuracy=0.98,
        queries=10_000,
        rejected=0,
        pow_hashes=0,
        seconds=1.0,
    )


def report(*more: AttackRow) -> Report:
    rows = (
        clone("undefended", None, "soft", 0.96),
        clone("undefended", None, "hard", 0.89),
        clone("undefended", "masked", "soft", 0.95),
        clone("edm-fixed", None, "soft", 0.54),
        clone("edm-fixed", None, "hard", 0.44),
        clone("edm-fixed", "masked", "soft", 0.90),
        clone("edm-fixed", "masked", "soft", 0.92, seed=1),
        *more,
    )
    return Report(RUN, attacks=rows, training=(MEMBERS,))


def test_the_strongest_attacker_opens_the_page_and_leads_the_table() -> None:
    text = document.render([document.study(report())])
    lines = text.splitlines()
    assert "91.0 ± 1.4 % from its probabilities** (knockoff (masked))," in lines[3]
    assert "96.0 %" in lines[4]
    assert "44.0 %" in lines[4]
    assert "89.0 %" in lines[5]
    table = [line for line in lines if line.startswith("| knockoff")]
    assert [line.split(" | ")[0] for line in table] == ["| knockoff (masked)", "| knockoff", "| knockoff"]
    assert table[0].endswith(
        "| leaves out the label where it is a frequent one | **91.0 ± 1.4 %** | 95.0 % | +4.0 | 2 |"
    )
    assert "| mnist | edm_fixed | 3 (78.0 %) | 75.0 % |" in text
    assert "every policy" not in text


def test_a_second_key_stands_next_to_the_first() -> None:
    again = report(
        clone("edm-fixed", "masked", "soft", 0.80, seed=2), clone("edm-fixed", "masked", "soft", 0.82, seed=3)
    )
    text = document.render([document.study(report(), again)])
    assert "(knockoff (masked)), 86.0 ± 5.9 % under a second key," in text
    (row,) = [line for line in text.splitlines() if line.startswith("| knockoff (masked)")]
    assert row.endswith("**91.0 ± 1.4 %** | 86.0 ± 5.9 % | 95.0 % | +4.0 | 2 |")


def test_every_policy_is_listed_by_what_it_gives_away() -> None:
    others = [
        clone("meco", None, "soft", 0.95),
        clone("misleader", None, "soft", 0.97),
        clone("label", None, "hard", 0.5),
    ]
    (study,) = [document.study(report(*others))]
    assert [policy.name for policy in study.policies] == ["edm-fixed", "misleader", "meco", "label"]
    text = document.render([study])
    assert "| edm-fixed | knockoff (masked) | 91.0 ± 1.4 % | 95.0 % | +37.0 | knockoff | 44.0 % | 89.0 % |" in text
    assert "| label | - | - | - | - | knockoff | 50.0 % | 89.0 % |" in text


def test_an_attacker_measured_on_one_policy_is_compared_with_nobody() -> None:
    found = document.study(report(clone("edm-fixed", "centred", "soft", 0.99)))
    assert "knockoff (centred)" not in [each.name for each in found.edm.thieves]


def test_a_reading_that_was_not_measured_is_said(tmp_path: Path) -> None:
    whole = report()
    soft = dataclasses.replace(whole, attacks=tuple(row for row in whole.attacks if row.labels == "soft"))
    with pytest.raises(ResultError, match="expected attackers of `edm-fixed` who read hard labels"):
        document.study(soft)
    with pytest.raises(ResultError, match="expected a row of edm-fixed's ensemble"):
        document.study(dataclasses.replace(whole, training=()))
    with pytest.raises(ResultError, match=r"no unmixing-\*\.json; make reproduce-unmixing"):
        document.found(tmp_path)
    write(tmp_path / "unmixing-mnist.json", whole)
    write(tmp_path / "unmixing-mnist-second-key.json", whole)
    (study,) = document.found(tmp_path)
    assert study.again is not None
