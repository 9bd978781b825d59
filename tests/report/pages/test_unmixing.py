"""The page of thieves who unmix: what it opens with, and the order of its table."""

from __future__ import annotations

import dataclasses

import pytest

from report.pages import unmixing as document
from report.rows.clones import AttackRow
from report.rows.run import RunInfo
from report.rows.training import TrainingRow
from report.schema import Report, ResultError

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


def test_the_strongest_thief_opens_the_page_and_leads_the_table() -> None:
    text = document.render(report())
    opening = text.splitlines()[3:6]
    assert "91.0 ± 1.4 % from its probabilities** (knockoff (masked))" in opening[0]
    assert "96.0 %" in opening[1]
    assert "44.0 %" in opening[1]
    table = [line for line in text.splitlines() if line.startswith("| knockoff")]
    assert [line.split(" | ")[0] for line in table] == ["| knockoff (masked)", "| knockoff", "| knockoff"]
    assert table[0].endswith(
        "| leaves out the label where it is a frequent one | **91.0 ± 1.4 %** | 95.0 % | +4.0 | 2 |"
    )
    assert "3 (78.0 %). A label tells 75.0 % of which" in text


def test_a_thief_that_one_policy_did_not_meet_is_compared_with_nobody() -> None:
    found = document.thieves(report(clone("edm-fixed", "centred", "soft", 0.99)), "edm-fixed")
    assert "knockoff (centred)" not in [each.name for each in found]


def test_a_reading_that_was_not_measured_is_said() -> None:
    whole = report()
    soft = dataclasses.replace(whole, attacks=tuple(row for row in whole.attacks if row.labels == "soft"))
    with pytest.raises(ResultError, match="expected thieves who read probabilities and thieves who read labels"):
        document.render(soft)
