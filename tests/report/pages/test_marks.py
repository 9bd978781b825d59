"""The page of marks: what does not hold comes first, and every number from rows made up here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from report.pages import marks as document
from report.rows.marks import MarkCostRow, MarkNullRow, MarkRow
from report.rows.run import RunInfo
from report.schema import Report, ResultError, write
from tests.report.pages.reading import answer, check, lines

RUN = RunInfo(
    "abc", 0, "Linux x86_64, 2 CPUs", "a CPU", None, {}, "2026-01-01T00:00:00+00:00", 1.0, {"mark clones' epochs": 6}
)
SOFT = MarkRow(
    recipe="mnist", mark="linear", strength=0.02, parts=2, thief="soft", seed=0, queries=6000, clone_accuracy=0.98,
    victim_accuracy=0.99, l1=0.04, ece=0.02, ece_unmarked=0.015, images=10_000, z=6.0, p=2e-9, e=1e6, accounts=100,
    named=True, other=0.01,
)  # fmt: skip
TUNED = dataclasses.replace(SOFT, thief="fine-tuned on 1,000", z=4.0, p=3e-5)
LABELS = dataclasses.replace(SOFT, thief="labels", z=0.1, p=0.4, named=False)
WEAK = dataclasses.replace(SOFT, strength=0.005, p=0.02, named=False)
NULL = MarkNullRow("mnist", "true labels", 3, 120, 0.01, 1, 0.0002, 0.0456, 0.004)
COST = MarkCostRow("mnist", 2, 64, (10.0, 12.0, 11.0))


def report(*rows: MarkRow, null: MarkNullRow = NULL) -> Report:
    return Report(RUN, marks=rows, mark_nulls=(null,), mark_costs=(COST,))


def rendered(*rows: MarkRow, null: MarkNullRow = NULL) -> str:
    text = document.render([document.study(report(*rows, null=null))])
    check(text)
    return text


def test_what_does_not_hold_comes_first() -> None:
    text = rendered(SOFT, TUNED, LABELS, WEAK)
    first, *others = answer(text)
    assert first == "**Does not hold**: mnist: every thief that was tried is named; these are not: labels."
    assert "p at most 1.0e-06; measured 2.0e-09." in others[0]
    assert (
        "p is at most 0.001 after pruning, fine-tuning on 1,000 images and distilling again; measured 3.0e-05"
        in others[1]
    )
    assert "measured 0.040, and 0.0200 for 0.0150." in others[2]
    assert "1 of 120 tries were accusations." in others[3]


def test_missed_targets_are_said() -> None:
    missed = dataclasses.replace(SOFT, p=1e-4, l1=0.06)
    accused = dataclasses.replace(NULL, accused=20, low=0.1, high=0.3)
    lost = [line for line in answer(rendered(missed, TUNED, null=accused)) if line.startswith("**Does not hold**")]
    assert len(lost) == 3
    assert "measured 1.0e-04" in lost[0]


def test_tables_have_the_hidden_first() -> None:
    text = rendered(SOFT, TUNED, LABELS, WEAK)
    thieves = [line.split(" | ")[0] for line in lines(text, "| 98.0 % |") if line.endswith("| 0.01 |")]
    assert thieves == ["| labels", "| fine-tuned on 1,000", "| soft"]
    marks = [line.split(" | ")[1] for line in lines(text, "| linear |")]
    assert marks == ["0.005", "0.020"]
    assert lines(text, "| true labels | 3 | 120 | 1 |", "0.0 % to 4.6 %")
    assert lines(text, "| 2 | 64 | 11.0 | 10.0 to 12.0 |")


def test_the_page_and_its_figure_come_from_a_results_file(tmp_path: Path) -> None:
    write(tmp_path / "marks-mnist.json", report(SOFT, TUNED, LABELS))
    made = document.pages(tmp_path)
    assert made.keys() == {"results/marks.md", "results/marks.svg"}
    assert made["results/marks.svg"].startswith("<svg")
    assert document.pages(tmp_path) == made
    write(tmp_path / "marks-mnist.json", report(SOFT, LABELS))
    assert document.pages(tmp_path)["results/marks.svg"] != made["results/marks.svg"]


def test_the_served_mark_must_have_been_measured() -> None:
    with pytest.raises(ResultError, match="expected the thief 'soft' of the mark"):
        document.study(report(WEAK))
